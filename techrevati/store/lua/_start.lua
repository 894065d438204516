-- Start: how a run and a thread come into being; where the run then stands is the script's matter.
-- Twin: techrevati.store.twin.begin

-- The answer to a start that was made before, or nil.
local function made_before(idem, digest, id, thread)
  local known = idem ~= '' and call('GET', K('idem', idem))
  if known then
    local first, made_of = string.match(known, '^(%S+) (.*)$')
    if made_of ~= digest then return { -2, {}, first } end
    return { 0, {}, first, call('HGET', K('run', first), 'thread') or '' }
  end
  if call('EXISTS', K('run', id)) == 1 then return { 0, {}, id, thread } end
end

local function begin_thread(t, r)
  put(t, 'version', '0', 'n', '0', 'spans', '0:', 'bytes', '0', 'full', '0', 'since', '0', 'fence', '0',
    'tenant', r.tenant, 'id', r.thread, 'created', NOWS)
end

-- Write a run of a known thread into every index.  from: where its own fields begin among the arguments.
local function begin_run(r, t, role, agent, priority, attempts, idem, digest, begin, deadline, from)
  local made = { 'role', role, 'agent', agent, 'turn', '1', 'attempt', '0', 'fails', '0', 'hops', '0', 'seq', '0',
    'wakes', '0', 'priority', priority, 'maxa', attempts, 'parent', '', 'idem', idem, 'created', NOWS, 'token', '',
    'next_at', '' }
  for i = 1, #made, 2 do put(r, made[i], made[i + 1]) end
  for i = from, #ARGV, 2 do put(r, ARGV[i], ARGV[i + 1]) end
  if begin then put(r, 'next_at', f0(begin)) end
  if deadline then
    put(r, 'deadline', f0(deadline))
    call('ZADD', DEADLINES, f0(deadline), r.id)
  end
  call('ZADD', 'runs:' .. TAG, NOWS, r.id)
  local index = K('runsof', t.name)
  if not t.created then                             -- the oldest leave it when their retention has ended
    for _, old in ipairs(call('ZRANGE', index, 0, 1)) do
      if call('EXISTS', K('run', old)) == 0 then call('ZREM', index, old) end
    end
  end
  call('ZADD', index, NOWS, r.id)
  if idem ~= '' then call('SET', K('idem', idem), r.id .. ' ' .. digest) end
  event(r, '-', 'run.queued', 'role', role, 'agent', agent)
end
