-- run_release: give a leased run back unharmed (drain): no attempt is counted, it keeps its place.
-- Twin: techrevati.store.twin.lease.run_release
-- include: _unit _homes _above _finish
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  token
-- ARGV[5...] key, JSON  results to journal: what was paid for is not paid again
-- returns  {1 | 0 = released before, wanted} or {-1, _, current token}, {-4} run gone
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r, token = run_of(ARGV[3]), ARGV[4]
if not r then return { -4, {} } end
if token == '' or r.token ~= token then
  need(r, 'commit', 'released')
  if token ~= '' and (r.commit == token or r.released == token) then return { 0, {} } end
  return { -1, {}, r.token }
end
for i = 5, #ARGV, 2 do
  call('HSETNX', K('journal', r.id), 'e:' .. ARGV[i], ARGV[i + 1])
  put(r, 'j', '1')
end
put(r, 'released', token)
if r.cancel ~= '' and r.winds ~= '1' then
  finish(r, 'cancelled', by_of(token), 'reason', r.cancel)
else
  leave(r)
  event(r, by_of(token), 'turn.released', 'turn', r.turn, 'role', r.role)
  ready_add(r)
end
return reply(1)
