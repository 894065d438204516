-- Finish: the one way a run becomes terminal, whoever ends it.
-- Twin: techrevati.store.twin.finish
local STOPS, GRACE, stop = 0, 10000000, nil

-- Put an entry into a run's inbox; an id beginning with "~" does not wake it.
local function inbox_add(r, id, kind, json)
  put(r, 'inbox_n', f0(num(r.inbox_n) + 1))
  call('HSET', K('inbox', r.id), id, r.inbox_n .. ' ' .. kind .. ' ' .. json)
  if string.sub(id, 1, 1) ~= '~' then
    put(r, 'wakes', f0(num(r.wakes) + 1))
    if r.home == 'due' and r.token == '' and (r.why == 'decision' or r.why == 'timer' or r.why == 'child') then
      if r.why == 'child' and kind == 'child' and num(r.open) > 1 then
        put(r, 'open', f0(num(r.open) - 1))         -- it waits for more of them
      else
        leave(r)
        ready_add(r)
      end
    end
  end
end

-- Of `open` sub-agents that a run waits for, those that ended while its turn ran are in the inbox; what else is there
-- wakes it.
local function still_open(r, open)
  local ends = 0
  if num(r.wakes) > 0 then
    for _, text in ipairs(call('HVALS', K('inbox', r.id))) do
      if string.find(text, '^%d+ child ') then ends = ends + 1 end
    end
  end
  return num(r.wakes) > ends and 0 or max(0, open - ends)
end

-- An operator may send these back to work, so what reached them is kept as long as they are.
local function retriable(r) return r.status == 'dead' or r.status == 'failed' or r.status == 'cancelled' end

local function kids_of(r)
  local kids = r.kids ~= '' and call('SMEMBERS', K('kids', r.id)) or {}
  table.sort(kids)
  return kids
end

-- The parent hears of it, also one that ended but may be sent back.  The number keeps a second end apart.
local function tell_parent(r, status)
  local parent = run_of(r.parent)
  if not parent or (terminal(parent) and not retriable(parent)) then return end
  inbox_add(parent, 'child:' .. r.id .. ':' .. r.seq, 'child', '{"run_id":"' .. r.id .. '","status":"' .. status .. '"}')
  if terminal(parent) then
    call('PEXPIRE', K('inbox', parent.id), f0(RUN_TTL))
  else
    event(parent, '-', is_tool(r) and 'call.ended' or 'child.ended', 'child', r.id, 'status', status)
  end
end

-- A run's end, or a stop of it, takes a sub-agent with it: noted, for both may be sent back together.
local function fell(kid, reason, grace)
  if terminal(kid) then return end
  put(kid, 'felled', '1')
  stop(kid, reason, grace)
end

-- more: further fields for the run's record (output, error, reason).  by: who writes the event.
local function finish(r, status, by, field, value)
  need(r, 'idem', 'inbox_n', 'kids', 'deadline', 'agent', 'asks', 'below')
  local routing = r.home == 'routes' or (r.home == 'due' and r.token == '' and r.why == 'route')
  leave(r)
  put(r, 'home', '', 'status', status, 'token', '', 'why', '', 'until', '', 'ended', NOWS, field, value)
  if routing then put(r, 'resume', 'routes') end
  if field == 'output' then event(r, by, 'run.' .. status) else event(r, by, 'run.' .. status, field, value) end
  if r.deadline ~= '' then call('ZREM', DEADLINES, r.id) end
  call('ZADD', 'ended:' .. TAG, f0(NOW + RUN_TTL * 1000), r.id)
  local kept = { 'run', 'events', 'decided', 'inbox', 'journal', 'calls', 'kids' }
  local n = r.inbox_n == '' and 2 or 3
  if retriable(r) then n = 7 end
  for i = 1, n do call('PEXPIRE', K(kept[i], r.id), f0(RUN_TTL)) end
  local kids, whole = status ~= 'completed' and kids_of(r) or {}, status == 'cancelled' or status == 'superseded'
  if n < 7 then
    call('DEL', K('inbox', r.id), K('journal', r.id), K('calls', r.id))
    if r.kids ~= '' then call('PEXPIRE', K('kids', r.id), f0(RUN_TTL)) end
    if num(r.wakes) ~= 0 then put(r, 'wakes', '0') end
  end
  if r.idem ~= '' then call('PEXPIRE', K('idem', r.idem), 86400000) end

  local t = thread_of(r)
  if t.active == r.id then
    local follower
    repeat
      local id = call('LPOP', K('line', t.name))
      follower = id and run_of(id)
    until follower or not id
    if follower then
      need(follower, 'resume', 'next_at', 'priority')
      activate(follower)
    else
      put(t, 'active', '', 'ttl', '1')
      for _, kind in ipairs({ 'thread', 'msgs', 'ckpt', 'runsof' }) do
        call('PEXPIRE', K(kind, t.name), f0(THREAD_TTL))
      end
    end
  end

  asks_no_more(r)
  if r.parent ~= '' then tell_parent(r, status) end
  for _, id in ipairs(kids) do
    local kid = run_of(id)
    if kid and (whole or kid.detached ~= '1') then fell(kid, 'its parent was ' .. status, GRACE) end
  end
end

-- Ask a leased run to stop: its holder hears it on the channel, at the latest with its next renewal; the
-- sweep ends it when the grace is over.
local function flag(r, reason, grace)
  if r.cancel == '' then
    put(r, 'cancel', reason, 'cancel_by', f0(NOW + grace), 'grace', f0(grace))
    event(r, '-', 'run.cancelling', 'reason', reason)
    call('ZADD', DUE, f0(min(num(call('ZSCORE', DUE, r.id)), NOW + grace)), r.id)
    call('PUBLISH', 'stop:' .. TAG, r.id)
  end
end

-- End a run that must not go on under its lease: the token is worth nothing from here on.
local function revoke(r, status, ...)
  if r.token ~= '' then call('PUBLISH', 'stop:' .. TAG, r.id) end
  finish(r, status, '-', ...)
end

-- A run that waits, and whose agent has hooks for its end, has one more turn, for them; its sub-agents stop now.
-- Where no pool lives, and at a second cancel, it does without.
local function wind_up(r, reason, grace)
  put(r, 'cancel', reason, 'cancel_by', f0(NOW + grace), 'grace', f0(grace))
  event(r, '-', 'run.cancelling', 'reason', reason)
  if r.home ~= 'ready' and r.home ~= 'last' then
    leave(r)
    ready_add(r)
  end
  need(r, 'kids')
  for _, id in ipairs(kids_of(r)) do
    local kid = run_of(id)
    if kid then fell(kid, reason, grace) end
  end
end

-- Cancel a run and its sub-agents.  A script ends 128 at most: the rest stands due, flagged, for the sweep.
stop = function(r, reason, grace)
  if terminal(r) then return end
  if leased(r) then
    flag(r, reason, grace)
    for _, id in ipairs(kids_of(r)) do
      local kid = run_of(id)
      if kid then fell(kid, reason, grace) end
    end
  elseif STOPS < 128 and r.cancel == '' and num(r.turn) > 1 and r.winds == '1' and account(r.role).window > 0 then
    STOPS = STOPS + 1
    wind_up(r, reason, grace)
  elseif STOPS < 128 or r.home == 'line' then
    STOPS = STOPS + 1
    finish(r, 'cancelled', '-', 'reason', reason)
  elseif r.cancel == '' then
    leave(r)
    put(r, 'cancel', reason, 'cancel_by', NOWS)
    due_add(r, NOW, 'cancel')
  end
end
