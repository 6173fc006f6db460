#!/usr/bin/env bash
# Hosts on one machine, for tests of what crosses a network. Each is a network, PID, IPC, host name and mount namespace with an
# address of its own, a private /tmp and /dev/shm, and an sshd that takes one key. Nothing is routed off the machine.
#
#   hosts.sh usable          succeeds if this machine and user can do it; else says why not and ends with 3
#   hosts.sh start [N]       makes N hosts (3), starts their sshd, returns when all answer
#   hosts.sh stop            ends and removes everything that it made
#   hosts.sh env             prints DEEPRC_HOSTS_* for the shell: names, addresses, the ssh command, the interface network
#   hosts.sh run I CMD...    runs CMD inside host I without ssh, so also while its link is cut
#   hosts.sh cut I, heal I   takes the link of host I down, up; its processes go on
#   hosts.sh slow I MBIT     limits what host I sends to MBIT/s (tc tbf)
#
# Environment: DEEPRC_HOSTS_DIR (state, default ${TMPDIR:-/tmp}/deeprc-hosts), DEEPRC_HOSTS_NET (10.78.0), DEEPRC_HOSTS_PREFIX (drc;
# at most 6 letters, for interface names).
set -euo pipefail
dir=${DEEPRC_HOSTS_DIR:-${TMPDIR:-/tmp}/deeprc-hosts}
net=${DEEPRC_HOSTS_NET:-10.78.0}
prefix=${DEEPRC_HOSTS_PREFIX:-drc}
bridge=${prefix}br0
repository=$(cd "$(dirname "$0")/../.." && pwd)

say() { printf 'hosts: %s\n' "$*" >&2; }
fail() { printf 'hosts: error: %s\nhint: %s\n' "$1" "$2" >&2; exit "${3:-1}"; }
name_of() { echo "$prefix$1"; }
address_of() { echo "$net.$((10 + $1))"; }
count() { cat "$dir/count" 2>/dev/null || echo 0; }
as_ssh() { echo "ssh -F $dir/ssh_config"; }
runs() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

usable() {
  local missing=()
  for program in ip nsenter unshare ssh ssh-keygen; do command -v "$program" >/dev/null || missing+=("$program"); done
  [ -x /usr/sbin/sshd ] || missing+=(sshd)
  [ ${#missing[@]} = 0 ] || fail "not here: ${missing[*]}" "Debian, Ubuntu: apt-get install iproute2 openssh-server openssh-client util-linux" 3
  [ "$(id -u)" = 0 ] || fail "network namespaces need root" "run it as root, or in a container with --privileged" 3
  local probe=${prefix}probe$$
  ip netns add "$probe" 2>/dev/null || fail "this root may not make network namespaces" "a container needs --privileged" 3
  ip netns del "$probe"
}

# The first process of host I: it gets its namespaces, hides /tmp and /dev/shm, and becomes sshd.
boot() {
  local host
  host=$dir/$(name_of "$1")
  mkdir -p "$host/tmp"
  chmod 1777 "$host/tmp"
  [ -s "$host/key" ] || ssh-keygen -q -t ed25519 -N '' -C "$(name_of "$1")" -f "$host/key"
  cat >"$host/sshd_config" <<CONFIG
Port 22
ListenAddress $(address_of "$1")
HostKey $host/key
AuthorizedKeysFile $dir/id.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PidFile none
MaxStartups 200:30:400
MaxSessions 200
AcceptEnv *
CONFIG
  # What lies below /tmp or /dev/shm and is needed inside is bound back to its place.
  # shellcheck disable=SC2016 # the inner shell expands it
  ip netns exec "$(name_of "$1")" unshare --uts --ipc --pid --fork --kill-child --mount --propagation private \
    bash -c '
      set -e
      host=$1 name=$2; shift 2
      hostname "$name"
      mount -t proc proc /proc
      mkdir -p /run/sshd /run/deeprc-kept
      mount -t tmpfs tmpfs /run/deeprc-kept
      number=0
      for kept in "$@"; do number=$((number + 1)); mkdir "/run/deeprc-kept/$number"; mount --bind "$kept" "/run/deeprc-kept/$number"; done
      mount --bind "$host/tmp" /tmp
      mount -t tmpfs tmpfs /dev/shm
      number=0
      for kept in "$@"; do number=$((number + 1)); mkdir -p "$kept"; mount --bind "/run/deeprc-kept/$number" "$kept"; done
      mount --bind "$host/../hosts" /etc/hosts
      exec /usr/sbin/sshd -D -f "$host/sshd_config" -E "$host/sshd.log"
    ' _ "$host" "$(name_of "$1")" "${kept[@]}" >"$host/boot.log" 2>&1 </dev/null &
  echo $! >"$host/pid"
  disown
}

start() {
  local hosts=${1:-3} i
  usable
  [ "$(count)" = 0 ] || fail "there are hosts already in $dir" "$0 stop"
  mkdir -p "$dir"
  chmod 755 "$dir"
  echo "$hosts" >"$dir/count"
  [ -s "$dir/id" ] || ssh-keygen -q -t ed25519 -N '' -C deeprc-hosts -f "$dir/id"
  echo "127.0.0.1 localhost" >"$dir/hosts"
  : >"$dir/ssh_config"
  for i in $(seq "$hosts"); do
    echo "$(address_of "$i") $(name_of "$i")" >>"$dir/hosts"
    printf 'Host %s\n  HostName %s\n' "$(name_of "$i")" "$(address_of "$i")" >>"$dir/ssh_config"
  done
  cat >>"$dir/ssh_config" <<CONFIG
Host *
  User root
  IdentityFile $dir/id
  IdentitiesOnly yes
  BatchMode yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  # A cut link is noticed, as on a cluster that is set up for mpirun over ssh.
  ServerAliveInterval 2
  ServerAliveCountMax 2
CONFIG
  kept=("$dir")
  for path in "$repository" "${CARGO_TARGET_DIR:-}"; do
    case "$path/" in /tmp/* | /dev/shm/*) [ ! -d "$path" ] || kept+=("$path") ;; esac
  done
  ip link add "$bridge" type bridge
  ip addr add "$net.1/24" dev "$bridge"
  ip link set "$bridge" up
  for i in $(seq "$hosts"); do
    ip netns add "$(name_of "$i")"
    ip link add "${prefix}h$i" type veth peer name eth0 netns "$(name_of "$i")"
    ip link set "${prefix}h$i" master "$bridge" up
    ip -n "$(name_of "$i")" addr add "$(address_of "$i")/24" dev eth0
    ip -n "$(name_of "$i")" link set lo up
    ip -n "$(name_of "$i")" link set eth0 up
    boot "$i"
  done
  for i in $(seq "$hosts"); do
    for _ in $(seq 100); do
      $(as_ssh) -o ConnectTimeout=1 "$(name_of "$i")" true 2>/dev/null && continue 2
      runs "$dir/$(name_of "$i")/pid" || break
      sleep 0.1
    done
    cat "$dir/$(name_of "$i")"/boot.log "$dir/$(name_of "$i")/sshd.log" >&2 || true
    stop
    fail "host $i does not answer" "its log is above"
  done
  say "$hosts hosts are up: $(as_ssh) $(name_of 1)"
}

stop() {
  local i file
  for i in $(seq "$(count)"); do
    file=$dir/$(name_of "$i")/pid
    # --kill-child: with unshare ends the first process of the namespace, and with that every process in it.
    if runs "$file"; then kill -9 "$(cat "$file")" 2>/dev/null || true; fi
    ip link del "${prefix}h$i" 2>/dev/null || true
    ip netns del "$(name_of "$i")" 2>/dev/null || true
  done
  ip link del "$bridge" 2>/dev/null || true
  # Mounts of a namespace vanish with its last process; until then files below may be busy.
  for _ in $(seq 50); do rm -rf "$dir" 2>/dev/null && break; sleep 0.1; done
}

within() {
  local outer first
  outer=$(cat "$dir/$(name_of "$1")/pid")
  # The line has no end, which `read` takes for a failure.
  read -r first _ <"/proc/$outer/task/$outer/children" || true
  shift
  exec nsenter --target "$first" --net --uts --ipc --pid --mount --wd="$PWD" "$@"
}

case ${1:-} in
usable) usable ;;
start) start "${2:-3}" ;;
stop) stop ;;
env)
  names=() addresses=()
  for i in $(seq "$(count)"); do names+=("$(name_of "$i")") addresses+=("$(address_of "$i")"); done
  printf 'DEEPRC_HOSTS_NAMES="%s"\nDEEPRC_HOSTS_ADDRESSES="%s"\nDEEPRC_HOSTS_SSH="%s"\nDEEPRC_HOSTS_NETWORK=%s.0/24\n' \
    "${names[*]}" "${addresses[*]}" "$(as_ssh)" "$net"
  ;;
run) shift; within "$@" ;;
cut) ip link set "${prefix}h$2" down ;;
heal) ip link set "${prefix}h$2" up ;;
slow) ip netns exec "$(name_of "$2")" tc qdisc replace dev eth0 root tbf rate "$3mbit" burst 64kb latency 50ms ;;
*)
  sed -n '2,15s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
