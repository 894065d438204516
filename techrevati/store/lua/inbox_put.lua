-- inbox_put: hand something from outside to a run: a decision, a steering message.
-- Twin: techrevati.store.twin.scripts.inbox_put
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
if kind == 'decision' then
  local decided, canonical = K('decided', r.id), call('HGET', K('calls', r.id), 'id:' .. call_id)
  local first = call('HGET', decided, canonical or call_id)
  if first == id then return { 0, {} } end
  if terminal(r) then return { -5, {}, r.status } end
  if first then return { -7, {} } end
  if not canonical and r.home == 'due' and r.token == '' and r.why == 'decision' then return { -6, {} } end
end
if terminal(r) then return { -5, {}, r.status } end
if call('HEXISTS', K('inbox', r.id), id) == 1 then return { 0, {} } end
local waiting = call('HLEN', K('inbox', r.id))
if waiting >= 512 then return { -9, {}, waiting } end
if kind == 'decision' then
  local canonical = call('HGET', K('calls', r.id), 'id:' .. call_id) or call_id
  call('HSET', K('decided', r.id), canonical, id)
  if canonical ~= call_id then call('HSET', K('decided', r.id), call_id, id) end
  event(r, '-', 'call.decided', 'call_id', canonical)
end
inbox_add(r, id, kind, ARGV[7])
return reply(1)
