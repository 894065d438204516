-- step_end: journal the result of a side effect; the first result wins.
-- Twin: techrevati.store.twin.lease.step_end
-- include: _unit
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  token
-- ARGV[5...] key, JSON  results, the step's own last
-- returns  {1, _, JSON that stands for the last key} or {-1, _, current token}, {-4} run gone
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r, token = run_of(ARGV[3]), ARGV[4]
if not r then return { -4, {} } end
if token == '' or r.token ~= token then return { -1, {}, r.token } end
for i = 5, #ARGV, 2 do call('HSETNX', K('journal', r.id), 'e:' .. ARGV[i], ARGV[i + 1]) end
if r.j == '' then put(r, 'j', '1') end
return reply(1, call('HGET', K('journal', r.id), 'e:' .. ARGV[#ARGV - 1]))
