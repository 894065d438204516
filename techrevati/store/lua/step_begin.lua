-- step_begin: note that a side effect of this turn is about to happen.
-- Twin: techrevati.store.twin.lease.step_begin
-- include: _unit
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  token
-- ARGV[5]  key
-- ARGV[6]  policy     once: refuse when another attempt began it; rerun
-- ARGV[7...] key, JSON  results to journal on the way
-- returns  {1, _} go on, {2, _, JSON} it has a result, {-8} begun by a dead attempt and declared once,
--          {-1, _, current token}, {-4} run gone
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r, token, key = run_of(ARGV[3]), ARGV[4], ARGV[5]
if not r then return { -4, {} } end
if token == '' or r.token ~= token then return { -1, {}, r.token } end
local journal = K('journal', r.id)
for i = 7, #ARGV, 2 do
  call('HSETNX', journal, 'e:' .. ARGV[i], ARGV[i + 1])
  if r.j == '' then put(r, 'j', '1') end
end
local known = call('HMGET', journal, 'e:' .. key, 'b:' .. key)
if known[1] then return reply(2, known[1]) end
if known[2] and known[2] ~= token and ARGV[6] == 'once'
  and num(string.match(known[2], '^%d+')) > num(r.pardon) then return reply(-8) end   -- not forgiven by run_retry
call('HSET', journal, 'b:' .. key, token)
if r.j == '' then put(r, 'j', '1') end
return reply(1)
