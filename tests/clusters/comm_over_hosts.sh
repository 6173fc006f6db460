#!/usr/bin/env bash
# Ranks on three hosts (see hosts.sh): `deeprc rank-test` over every transport between hosts that the program has, and what the
# ranks say when the link of one host is cut. Usage: comm_over_hosts.sh [PROGRAM [TRANSPORT...]]; the program
# is built with `make build COMM="mpi gloo ucx"`. Ends with 0 if all passed, also if this machine cannot have such hosts; it then says so.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=${1:-$here/../../target/release/deeprc}
program=$(realpath "$program") || exit 2
[ -x "$program" ] || { echo "comm over hosts: error: no program $program" >&2; exit 2; }
hosts=$here/hosts.sh
wanted=("${@:2}")
[ ${#wanted[@]} -gt 0 ] || wanted=(gloo ucx mpi auto)
networks=
logs=$(mktemp -d)
failed=0
# Deadline of every call while a link is cut, and how long until all have noticed: one call, the abort, the end of the process.
deadline=4
notice=15

if ! "$hosts" usable; then
  echo "comm over hosts: left out, this machine cannot have network-namespace hosts"
  rm -rf "$logs"
  exit 0
fi
running=()
finish() {
  for pid in "${running[@]}"; do kill -9 "$pid" 2>/dev/null; done
  "$hosts" stop
  rm -rf "$logs"
}
trap finish EXIT
trap 'exit 130' INT TERM
"$hosts" start 3 || exit 1
eval "$("$hosts" env)"
read -r -a names <<<"$DEEPRC_HOSTS_NAMES"
read -r -a addresses <<<"$DEEPRC_HOSTS_ADDRESSES"
port=29500

row() { printf '%-58s %s\n' "$1" "$2"; }
verdict() { # name, 0 for good, logs
  if [ "$2" = 0 ]; then row "$1" passed; return; fi
  row "$1" FAILED
  failed=1
  tail -n 25 "${@:3}" | sed 's/^/    /'
}

# rank_on HOST RANK SIZE ARGUMENTS...: as a user does, over ssh
rank_on() {
  local host=$1 rank=$2 size=$3
  shift 3
  # shellcheck disable=SC2086 # a command and its words
  timeout 120 $DEEPRC_HOSTS_SSH "${names[host]}" env RANK="$rank" WORLD_SIZE="$size" MASTER_ADDR="${addresses[0]}" \
    MASTER_PORT="$port" ${networks:+DEEPRC_COMM_NETWORKS=$networks} "$program" rank-test "$@"
}

mpirun_on_hosts() {
  local all
  all=$(IFS=,; echo "${names[*]}")
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout "$1" mpirun -np 3 --host "$all" --mca plm rsh \
    --mca plm_rsh_agent "$DEEPRC_HOSTS_SSH" --mca oob_tcp_if_include "$DEEPRC_HOSTS_NETWORK" \
    --mca btl tcp,self --mca btl_tcp_if_include "$DEEPRC_HOSTS_NETWORK" "${@:2}"
}

# checks NAME TRANSPORT RANKS-PER-HOST [WORDS]: all ranks pass, and rank 0 says WORDS
checks() {
  local name=$1 comm=$2 each=$3 words=${4:-} rank pids=() status=0
  port=$((port + 1))
  rm -f "$logs"/*
  for rank in $(seq 0 $((3 * each - 1))); do
    rank_on $((rank / each)) "$rank" $((3 * each)) --comm "$comm" --timeout 60 >"$logs/$rank" 2>&1 &
    pids+=($!)
  done
  for rank in "${!pids[@]}"; do wait "${pids[rank]}" || status=1; done
  grep -q -- "$words" "$logs/0" || status=1
  verdict "$name" "$status" "$logs"/*
  [ "$status" = 0 ] && sed -n 's/^rank-test: /    /p; s/^exchange of/    exchange of/p' "$logs/0"
}

# cut NAME TRANSPORT: the link of host 3 is cut while its rank is at work; every rank ends with a named error in time
cut() {
  local name=$1 comm=$2 rank pids=() status=0 start
  port=$((port + 1))
  rm -f "$logs"/*
  for rank in 0 1 2; do
    # Not over ssh: that would be cut, too.
    RANK=$rank WORLD_SIZE=3 MASTER_ADDR=${addresses[0]} MASTER_PORT=$port \
      "$hosts" run $((rank + 1)) "$program" rank-test --comm "$comm" --timeout $deadline --rounds 100000 >"$logs/$rank" 2>&1 &
    pids+=($!)
  done
  running=("${pids[@]}")
  working "$logs/0" "${pids[0]}" || status=1
  "$hosts" cut 3
  start=$SECONDS
  for rank in 0 1 2; do
    while kill -0 "${pids[rank]}" 2>/dev/null && [ $((SECONDS - start)) -le $notice ]; do sleep 0.1; done
    if kill -0 "${pids[rank]}" 2>/dev/null; then
      echo "rank $rank has not ended after $notice s" >>"$logs/$rank"
      kill -9 "${pids[rank]}"
      status=1
    fi
    wait "${pids[rank]}" && { echo "rank $rank succeeded" >>"$logs/$rank"; status=1; }
    grep -q 'timed out\|died\|left the communicator\|aborted by' "$logs/$rank" || { echo "rank $rank named no error" >>"$logs/$rank"; status=1; }
  done
  running=()
  "$hosts" heal 3
  verdict "$name" "$status" "$logs"/*
}

# Until rank 0 has finished a round.
working() {
  local start=$SECONDS
  until grep -qs '^round 1 of' "$1"; do
    kill -0 "$2" 2>/dev/null && [ $((SECONDS - start)) -lt 60 ] || return 1
    sleep 0.05
  done
}

has() {
  [[ " ${wanted[*]} " == *" $1 "* ]] || return 1
  "$program" rank-test --comm "$1" --ranks 1 >/dev/null 2>&1
}

for comm in gloo ucx; do
  has $comm || { row "$comm" "not built in, or not asked for"; continue; }
  checks "$comm: 3 hosts, 1 rank each" $comm 1 "over $comm"
  checks "$comm: 3 hosts, 2 ranks each" $comm 2 "over $comm"
  cut "$comm: the link of a host is cut" $comm
done
if has mpi && command -v mpirun >/dev/null; then
  mpirun_on_hosts 120 "$program" rank-test --comm mpi --timeout 60 >"$logs/mpi" 2>&1
  verdict "mpi: mpirun over ssh on 3 hosts" $? "$logs/mpi"
  sed -n 's/^rank-test: /    /p; s/^exchange of/    exchange of/p' "$logs/mpi"
  # The job ends, as a whole; ssh notices the cut only later, so `mpirun` is told to end by what its other ranks say.
  mpirun_on_hosts 60 "$program" rank-test --comm mpi --timeout $deadline --rounds 100000 >"$logs/mpi" 2>&1 &
  job=$!
  running=("$job")
  status=0
  working "$logs/mpi" "$job" || status=1
  "$hosts" cut 3
  start=$SECONDS
  wait "$job" && status=1
  took=$((SECONDS - start))
  running=()
  "$hosts" heal 3
  [ $took -le 30 ] || { echo "the job ended only after $took s" >>"$logs/mpi"; status=1; }
  verdict "mpi: the link of a host is cut; the job ended after $took s" $status "$logs/mpi"
else
  row mpi "not built in, or not asked for"
fi
if has auto; then
  checks "auto: 3 hosts, 1 rank each" auto 1 ""
  checks "auto: 3 hosts, 2 ranks each" auto 2 ""
  cut "auto: the link of a host is cut" auto
  # Ranks of one host share memory, only one of each crosses the network for barrier and allreduce.
  export DEEPRC_COMM_NETWORKS=gloo
  networks=gloo
  if "$program" rank-test --comm gloo --ranks 1 >/dev/null 2>&1; then
    checks "hybrid: 3 hosts, 2 ranks each" auto 2 "those of one host share memory"
    cut "hybrid: the link of a host is cut" auto
  fi
fi
exit $failed
