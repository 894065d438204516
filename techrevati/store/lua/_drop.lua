-- Drop: a thread is taken away at once; the records of its runs follow, a bounded number per call.
-- Twin: techrevati.store.twin.drop
local DROPS = 'drops:' .. TAG

-- End what runs on a thread and take the thread away.  Its index of runs goes on under a number, so that a new
-- thread of the same name has nothing to do with it.
local function drop_thread(t, reason)
  for _, id in ipairs(call('LRANGE', K('line', t.name), 0, -1)) do
    local behind = run_of(id)
    if behind then finish(behind, 'cancelled', '-', 'reason', reason) end
  end
  local active = t.active ~= '' and run_of(t.active)
  if active then revoke(active, 'cancelled', 'reason', reason) end
  local index = K('runsof', t.name)
  if call('EXISTS', index) == 1 then
    local n = f0(call('HINCRBY', KEYS[1], 'drops', 1))
    call('RENAME', index, K('drop', n))
    call('PERSIST', K('drop', n))
    call('ZADD', DROPS, n, n)
  end
  call('UNLINK', K('thread', t.name), K('msgs', t.name), K('ckpt', t.name), K('line', t.name))
  t.dirty, THREADS[t.name] = {}, nil
end

-- Take away all that a run of a dropped thread left behind; threads of its sub-agents are dropped with it.
local function forget(id)
  local r = run_of(id)
  RUNS[id] = false                                  -- nothing below may write to it again
  if r then
    need(r, 'idem', 'kids', 'parent')
    if r.parent ~= '' then call('SREM', K('kids', r.parent), id) end
    local first = r.idem ~= '' and string.match(call('GET', K('idem', r.idem)) or '', '^%S+')
    if first == id then call('UNLINK', K('idem', r.idem)) end
    r.dirty = {}
    for _, kid_id in ipairs(kids_of(r)) do
      local kid = run_of(kid_id)
      if kid and string.sub(kid.thread, 1, 10) == 'sub-agent-' then
        drop_thread(thread_of(kid), 'its parent was deleted')
      end
    end
  end
  call('ZREM', 'runs:' .. TAG, id)
  call('ZREM', 'ended:' .. TAG, id)
  call('UNLINK', K('run', id), K('events', id), K('live', id), K('inbox', id), K('journal', id), K('calls', id),
    K('decided', id), K('kids', id), K('asking', id))
  call('HSET', K('run', id), 'gone', NOWS)          -- a start that is sent again finds it, and makes nothing
  call('PEXPIRE', K('run', id), 60000)
end

-- Forget runs of dropped threads, about `limit`; says how many.
local function remove(limit)
  local removed, left = 0, limit
  while left > 0 do
    local n = call('ZRANGE', DROPS, 0, 0)[1]
    if not n then return removed end
    local ids = call('ZPOPMIN', K('drop', n), left)
    for i = 1, #ids, 2 do forget(ids[i]) end
    removed, left = removed + #ids / 2, left - #ids / 2
    if call('EXISTS', K('drop', n)) == 0 then
      call('ZREM', DROPS, n)
      left = left - 1
    end
  end
  return removed
end
