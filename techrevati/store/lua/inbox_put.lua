-- inbox_put: hand something from outside to a run: a decision, a steering message.
-- Twin: techrevati.store.twin.outside.inbox_put
-- include: _unit _homes _finish
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  entry id   made by the caller; sent again, it changes nothing.  "~..." does not wake the run
-- ARGV[5]  kind       decision | steer
-- ARGV[6]  call id    decision: any id of the call
-- ARGV[7]  JSON
-- returns  {1 stored | 0 was there, wanted} or {-4} run gone, {-5, _, status} terminal,
--          {-6} the run waits, and not for that call, {-7} another decision came first, {-9, _, n} inbox full
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r, id, kind, call_id = run_of(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
if not r then return { -4, {} } end
local decided, canonical = K('decided', r.id), call_id
if call('HEXISTS', decided, 'put:' .. id) == 1 then return { 0, {} } end
if terminal(r) then return { -5, {}, r.status } end
if kind == 'decision' then
  local asked = call('HGET', K('calls', r.id), 'id:' .. call_id)
  canonical = asked or call_id
  if call('HEXISTS', decided, canonical) == 1 then return { -7, {} } end
  if not asked and r.home == 'due' and r.token == '' and r.why == 'decision' then return { -6, {} } end
end
local waiting = call('HLEN', K('inbox', r.id))
if waiting >= 512 then return { -9, {}, waiting } end
call('HSET', decided, 'put:' .. id, kind)
if kind == 'decision' then
  call('HSET', decided, canonical, id, call_id, id)
  event(r, '-', 'call.decided', 'call_id', canonical)
end
inbox_add(r, id, kind, ARGV[7])
return reply(1)
