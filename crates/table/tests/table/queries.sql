-- Queries that every number of ranks and threads must answer as DataFusion does in one process (see queries.rs for the tables).
-- A query begins with `-- <what is compared>: <name>`: rows (in any order), order, count (of rows), error (must fail on every rank).

-- rows: scan
select id, v from f where v > 500;

-- rows: inner join big
select f.id, h.id, u from f join h on f.k = h.k where f.v < 100;

-- rows: inner join small
select f.id, d.name from f join d on f.k = d.k;

-- rows: left join
select f.id, d.name from f left join d on f.k = d.k;

-- rows: right join
select d.k, d.name, f.id from f right join d on f.k = d.k;

-- rows: left join small left
select d.k, d.name, f.id from d left join f on f.k = d.k;

-- rows: full join
select f.id, d.name from f full join d on f.k = d.k;

-- rows: left join + filter
select d.k, f.id from d left join f on f.k = d.k and f.v > d.w * 10;

-- rows: semi (in)
select id from f where k in (select k from d);

-- rows: semi (exists)
select k, name from d where exists (select 1 from f where f.k = d.k and f.v > 900);

-- rows: anti (not exists)
select id from f where not exists (select 1 from d where d.k = f.k);

-- rows: anti small left
select k, name from d where not exists (select 1 from f where d.k = f.k);

-- rows: not in (null aware, nulls)
select id from f where k not in (select k from d);

-- rows: not in (null aware, no nulls)
select id from f where k not in (select k from nn);

-- rows: mark join (or in)
select id from f where k in (select k from d) or v < 50;

-- rows: cross join
select nn.k, d.k from nn cross join d;

-- rows: non-equi join
select d.k, nn.k from d join nn on d.w < nn.k;

-- rows: non-equi left join
select d.k, nn.k from d left join nn on d.w < nn.k and d.w > 25;

-- rows: non-equi full join
select d.k, nn.k from d full join nn on d.w < nn.k and d.w > 25;

-- rows: join empty
select f.id from f join e on f.k = e.k;

-- rows: left join empty
select f.id, y from f left join e on f.k = e.k;

-- rows: 3-way join
select f.id, h.id, d.name from f join h on f.k = h.k join d on d.k = h.k where f.v < 60;

-- rows: group by
select k, count(*), sum(v), min(g), max(x), avg(v) from f group by k;

-- rows: group by string
select g, count(*), count(distinct v), sum(x) from f group by g having count(*) > 3;

-- rows: group by 2 keys
select k, g, sum(v) from f group by k, g;

-- rows: global agg
select count(*), sum(v), min(x), max(g), count(distinct k) from f where v > 10;

-- rows: count(*) from statistics
select count(*) from f;

-- rows: global agg of empty
select count(*), sum(y) from e;

-- rows: rollup
select k, g, sum(v) from f where k < 20 group by rollup(k, g);

-- rows: distinct
select distinct k, g from f;

-- rows: window partition by
select id, row_number() over (partition by k order by id), sum(v) over (partition by k order by id rows between 3 preceding and current row), lag(v) over (partition by k order by id) from f;

-- rows: window no partition
select id, row_number() over (order by x, id), sum(v) over (order by id) from f;

-- rows: window top n per group
select * from (select id, k, row_number() over (partition by k order by x desc, id) rn from f) where rn <= 2;

-- order: order by
select id, v, g from f order by v desc nulls last, g, id;

-- order: order by, projected away
select g, x from f order by id desc;

-- order: order by one-key skew
select one, id from s1 order by one, id;

-- rows: order by all equal
select one, id from s1 order by one;

-- order: order by empty
select * from e order by y;

-- order: order by limit
select id, v from f order by v, id limit 17;

-- order: order by limit offset
select id, x from f order by x desc, id limit 10 offset 25;

-- count: limit
select id from f limit 33;

-- count: limit over join
select f.id from f join h on f.k = h.k limit 20;

-- rows: limit in subquery + agg
select count(*) from (select * from f limit 100);

-- rows: join of order-limit
select d.k, t.id from d join (select id, k from f order by id limit 50) t on d.k = t.k;

-- rows: union all
select k from f union all select k from h union all select k from e;

-- rows: union distinct
select k from f union select k from d;

-- rows: union + agg
select k, count(*) from (select k from f union all select k from h) group by k;

-- rows: union values
select k from d union all select 1 union all values (7), (8);

-- rows: intersect
select k from f intersect select k from d;

-- rows: except
select k from f except select k from d;

-- rows: values only
values (1, 'a'), (2, 'b');

-- rows: scalar subquery
select id from f where v > (select avg(u) from h);

-- rows: scalar subquery below exchange
select k, count(*) from f where v > (select avg(u) from h) group by k;

-- rows: scalar subquery in select
select id, x - (select max(w) from d where w > (select min(w) from d)) from f;

-- rows: correlated subquery
select id from f where v > (select avg(u) from h where h.k = f.k);

-- rows: cte twice
with c as (select k, sum(v) s from f group by k) select a.k, b.s from c a join c b on a.k = b.k;

-- order: agg of join of agg order
select g, sum(s) z from (select f.g, t.s from f join (select k, sum(u) s from h group by k) t on f.k = t.k) group by g order by z desc, g;

-- order: tpch-like
select d.name, count(*) c, sum(f.v * h.u) s from f join h on f.k = h.k join d on d.k = f.k where f.x < 30000 group by d.name order by s desc nulls last, d.name limit 5;

-- order: range join + window + order
select id, rank() over (partition by g order by v, id) r from f order by r desc, id;

-- error: error on one rank
select cast(case when id = 17 then 'boom' else '1' end as bigint) as z, count(*) from f group by 1;

-- error: error below order by
select cast(case when id = 17 then 'boom' else '1' end as bigint) as z from f order by z;

-- error: subquery > 1 row
select id from f where v > (select u from h);

-- count: now() folded per rank
select id, now() from f;

-- rows: recursive cte
with recursive r as (select 1 as n union all select n + 1 from r where n < 5) select f.id from f join r on f.k = r.n;

-- rows: recursive over table
with recursive r as (select k from nn union select d.w from d join r on d.k = r.k) select * from r;

-- rows: median and distinct aggregates
select k, median(v), count(distinct g), round(stddev_samp(x)) from f group by k;

-- rows: array aggregate state
select g, approx_distinct(v) > 0, bool_and(v > 0) from f group by g;

-- rows: string functions
select upper(g), length(g), count(*) from f group by upper(g), length(g);

-- rows: union of joins
select f.id, d.name from f join d on f.k = d.k union all select h.id, d.name from h left join d on h.k = d.k;

-- order: union ordered
select id, k from f where v < 20 union all select id, k from h where u < 20 order by id, k;

-- rows: limit of an ordered subquery joined to itself
with t as (select id, k from f order by x desc, id limit 40) select a.id, b.id from t a join t b on a.k = b.k;

-- rows: exists with filter on both
select id from h where exists (select 1 from f where f.k = h.k and f.v > h.u);

-- order: having and order
select k, sum(v) s from f group by k having sum(v) > 100 order by s desc nulls last, k limit 7;

-- rows: case and coalesce
select id, case when v is null then -1 when v > 500 then 1 else 0 end c, coalesce(k, 0) from f;

-- rows: unnested constants
select f.id, t.a from f cross join (values (1), (2)) t(a) where f.id < 10;
