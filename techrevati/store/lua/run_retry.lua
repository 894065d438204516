-- run_retry: send a dead, failed or cancelled run back to the turn it ended in.
-- Twin: techrevati.store.twin.scripts.run_retry
-- include: _unit _homes _finish
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  line max
-- returns  {1, wanted, home} or {-4} run gone, {-5, _, n} line full, {-11, _, status} not to be retried
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r = run_of(ARGV[3])
if not r then return { -4, {} } end
if r.status ~= 'dead' and r.status ~= 'failed' and r.status ~= 'cancelled' then return { -11, {}, r.status } end
local t = thread_of(r)
local length = call('LLEN', K('line', t.name))
if t.active ~= '' and length >= tonumber(ARGV[4]) then return { -5, {}, length } end
for _, kind in ipairs({ 'run', 'events', 'live', 'decided' }) do call('PERSIST', K(kind, r.id)) end
if r.idem ~= '' then call('PERSIST', K('idem', r.idem)) end
call('ZREM', 'ended:' .. TAG, r.id)
if r.deadline ~= '' and num(r.deadline) > NOW then call('ZADD', DEADLINES, r.deadline, r.id) end
put(r, 'attempt', '0', 'fails', '0', 'cancel', '', 'cancel_by', '', 'error', '', 'next_at', '')
event(r, '-', 'run.queued', 'role', r.role, 'agent', r.agent)
if t.active == '' then activate(r) else
  put(r, 'home', 'line', 'status', 'queued')
  call('RPUSH', K('line', t.name), r.id)
end
return reply(1, r.home)
