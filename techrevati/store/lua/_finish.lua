-- Finish: the one way a run becomes terminal, whoever ends it.
-- Twin: techrevati.store.twin.finish

-- Put an entry into a run's inbox; an id beginning with "~" does not wake it.
local function inbox_add(r, id, kind, json)
  if call('HEXISTS', K('inbox', r.id), id) == 1 then return false end
  put(r, 'inbox_n', f0(num(r.inbox_n) + 1))
  call('HSET', K('inbox', r.id), id, r.inbox_n .. ' ' .. kind .. ' ' .. json)
  if string.sub(id, 1, 1) ~= '~' then
    put(r, 'wakes', f0(num(r.wakes) + 1))
    if r.home == 'due' and r.token == '' and (r.why == 'decision' or r.why == 'timer' or r.why == 'child') then
      leave(r)
      ready_add(r)
    end
  end
  return true
end

-- extra: more fields for the run's record (output, error).  by: who writes the event.
local function finish(r, status, by, ...)
  leave(r)
  put(r, 'home', '', 'status', status, 'token', '', 'why', '', 'until', '', 'ended', f0(NOW), ...)
  local extra = { ... }
  local shown = {}
  for i = 1, #extra, 2 do
    if extra[i] == 'error' or extra[i] == 'reason' then shown[#shown + 1] = extra[i] shown[#shown + 1] = extra[i + 1] end
  end
  event(r, by, 'run.' .. status, unpack(shown))
  call('ZREM', DEADLINES, r.id)
  call('DEL', K('inbox', r.id), K('journal', r.id), K('calls', r.id), K('kids', r.id))
  call('ZADD', 'ended:' .. TAG, f0(NOW + RUN_TTL * 1000), r.id)
  for _, kind in ipairs({ 'run', 'events', 'live', 'decided' }) do call('PEXPIRE', K(kind, r.id), f0(RUN_TTL)) end
  if r.idem ~= '' then call('PEXPIRE', K('idem', r.idem), 86400000) end

  local t = thread_of(r)
  if t.active == r.id then
    put(t, 'active', '')
    local next_id = call('LPOP', K('line', t.name))
    local follower = next_id and run_of(next_id)
    if follower then activate(follower) else
      put(t, 'ttl', '1')
      for _, kind in ipairs({ 'thread', 'msgs', 'ckpt' }) do call('PEXPIRE', K(kind, t.name), f0(THREAD_TTL)) end
    end
  end

  if r.parent ~= '' then
    local parent = run_of(r.parent)
    if parent and not terminal(parent) then
      inbox_add(parent, 'child:' .. r.id, 'child', '{"run_id":"' .. r.id .. '","status":"' .. status .. '"}')
    end
  end
end

-- Ask a leased run to stop: its holder hears it on the channel, at the latest with its next renewal; the
-- sweep ends it when the grace is over.
local function flag(r, reason, grace)
  if r.cancel == '' then
    put(r, 'cancel', reason, 'cancel_by', f0(NOW + grace))
    event(r, '-', 'run.cancelling', 'reason', reason)
    local at = math.min(num(call('ZSCORE', DUE, r.id)), NOW + grace)
    call('ZADD', DUE, f0(at), r.id)
    call('PUBLISH', 'stop:' .. TAG, r.id)
  end
end

-- End a run that must not go on under its lease: the token is worth nothing from here on.
local function revoke(r, status, ...)
  if r.token ~= '' then call('PUBLISH', 'stop:' .. TAG, r.id) end
  finish(r, status, '-', ...)
end

-- Cancel a run and its sub-agents (<= 128 each, by run_start).
local function cancel_tree(r, reason, grace, depth)
  if not terminal(r) then
    if depth < 8 then
      for _, id in ipairs(call('SMEMBERS', K('kids', r.id))) do
        local kid = run_of(id)
        if kid then cancel_tree(kid, reason, grace, depth + 1) end
      end
    end
    if r.home == 'due' and r.token ~= '' then flag(r, reason, grace) else
      finish(r, 'cancelled', '-', 'reason', reason)
    end
  end
end
