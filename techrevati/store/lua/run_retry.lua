-- run_retry: send a dead, failed or cancelled run back to the turn it ended in, with the sub-agents that its end took
--            with it, 128 at most.
-- Twin: techrevati.store.twin.outside.run_retry
-- include: _unit _homes _above _finish
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  line max
-- returns  {1 | 0 = sent back before, wanted, home} or {-4} run or thread gone, {-5, _, n} line full,
--          {-11, _, status} not to be retried
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r = run_of(ARGV[3])
if not r then return { -4, {} } end
need(r, 'retried')
if not terminal(r) and r.retried == '1' then return { 0, {}, r.home } end
if not retriable(r) then return { -11, {}, r.status } end
local t = thread_of(r)
if not call('ZSCORE', K('runsof', t.name), r.id) then return { -4, {} } end  -- it is gone, or another of that name
local length = call('LLEN', K('line', t.name))
if t.active ~= '' and length >= tonumber(ARGV[4]) then return { -5, {}, length } end

local left = 128
local function send_back(r)
  need(r, 'idem', 'deadline', 'agent', 'resume', 'priority', 'kids')
  local t = thread_of(r)
  for _, kind in ipairs({ 'run', 'events', 'decided', 'inbox', 'journal', 'calls', 'kids' }) do
    call('PERSIST', K(kind, r.id))
  end
  if r.idem ~= '' then call('PERSIST', K('idem', r.idem)) end
  call('ZREM', 'ended:' .. TAG, r.id)
  if num(r.deadline) > NOW then call('ZADD', DEADLINES, r.deadline, r.id)
  elseif r.deadline ~= '' then put(r, 'deadline', '') end
  put(r, 'attempt', '0', 'fails', '0', 'cancel', '', 'cancel_by', '', 'error', '', 'reason', '', 'next_at', '',
    'ended', '', 'retried', '1', 'pardon', t.fence, 'felled', '')
  for _, id in ipairs(kids_of(r)) do
    local kid = run_of(id)
    if kid and left > 0 and terminal(kid) and kid.status == 'cancelled' and kid.felled == '1'
      and call('ZSCORE', K('runsof', thread_of(kid).name), id) then
      left = left - 1
      -- Its end, which the parent was told of, is taken back.
      if call('HDEL', K('inbox', r.id), 'child:' .. id .. ':' .. kid.seq) == 1 then
        put(r, 'wakes', f0(num(r.wakes) - 1))
      end
      send_back(kid)
    end
  end
  event(r, '-', 'run.queued', 'role', r.role, 'agent', r.agent)
  if t.active == '' then activate(r) else line_add(r) end
end
send_back(r)
return reply(1, r.home)
