-- run_sweep: look again at what is due, keep the ticket accounts true, forget what is past its retention.
-- Twin: techrevati.store.twin.sweep.run_sweep
-- include: _unit _homes _above _finish _drop
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  limit      members of each index to look at, <= 128
-- ARGV[4]  expire     0: leave leases alone (Redis was lost a moment ago; their holders need time to renew)
-- ARGV[5]  patience   us without a claim, with work ready, before the account is reset; doubles to 30 s
-- returns  {1, wanted, moved, next look at us or '' , expired leases, dead}
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local limit, moved, expired, dead = tonumber(ARGV[3]), 0, 0, 0

-- A lease ran out: the turn is to run again, unless its run was to stop or this was its last attempt.  A run that was
-- to stop and has hooks for its end is to run them again.
local function expire(r)
  moved, expired = moved + 1, expired + 1
  local role, turn = r.role, r.turn
  if r.cancel ~= '' then
    if r.winds ~= '1' or num(r.attempt) + 1 >= num(r.maxa) then return revoke(r, 'cancelled', 'reason', r.cancel) end
    call('PUBLISH', 'stop:' .. TAG, r.id)
  end
  leave(r)
  put(r, 'attempt', f0(num(r.attempt) + 1))
  event(r, '-', 'turn.expired', 'turn', turn, 'role', role, 'attempt', r.attempt, 'worker', r.worker)
  if num(r.attempt) >= num(r.maxa) then
    dead = dead + 1
    finish(r, 'dead', '-', 'error', '{"type":"WorkerDied","message":"turn ' .. turn .. ' lost its worker ' ..
      r.attempt .. ' times","attempts":' .. r.attempt .. '}')
  else
    ready_add(r, true)
    offer(account(role), true)
  end
end

-- Nobody decided in time: put the decision that the turn gave for that case.
local function decide_expired(r)
  local calls, over, left = call('HGETALL', K('calls', r.id)), {}, math.huge
  for i = 1, #calls, 2 do
    local id = string.match(calls[i], '^exp:(.*)$')
    if id and call('HEXISTS', K('decided', r.id), id) == 0 then
      local at, json = string.match(calls[i + 1], '^(%d+) (.*)$')
      if tonumber(at) <= NOW then over[#over + 1] = { tonumber(at), id, json } else left = min(left, tonumber(at)) end
    end
  end
  table.sort(over, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
  for _, one in ipairs(over) do
    local id, json = one[2], one[3]
    call('HSET', K('decided', r.id), id, 'expired:' .. id)
    was_decided(r, id, 'expired', '1')
    inbox_add(r, 'expired:' .. id, 'decision', json ~= '' and json or 'null')
  end
  if r.home == 'due' then
    leave(r)
    due_add(r, left, 'decision')
  end
end

for _, id in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', NOWS, 'LIMIT', 0, limit)) do
  local r = run_of(id)
  if not r then call('ZREM', DUE, id)
  elseif r.home == 'due' then                       -- a sibling's end may have moved it in this very call
    if r.token ~= '' then
      if ARGV[4] == '1' or (r.cancel ~= '' and num(r.cancel_by) <= NOW) then expire(r) else
        local stop_by = r.cancel ~= '' and num(r.cancel_by) or math.huge
        call('ZADD', DUE, f0(min(NOW + 1000000, stop_by)), id)      -- out of the way of the timers behind it
      end
    else
      moved = moved + 1
      if r.cancel ~= '' then finish(r, 'cancelled', '-', 'reason', r.cancel)
      elseif r.why == 'decision' then decide_expired(r)
      elseif r.why == 'route' then
        leave(r)
        routes_add(r)
      else
        leave(r)
        ready_add(r)
      end
    end
  end
end

for _, id in ipairs(call('ZRANGEBYSCORE', DEADLINES, '-inf', NOWS, 'LIMIT', 0, limit)) do
  local r = run_of(id)
  if r and not terminal(r) then
    moved = moved + 1
    revoke(r, 'failed', 'error', '{"type":"DeadlineExceeded","message":"the deadline passed"}')
  end
  call('ZREM', DEADLINES, id)
end

for _, id in ipairs(call('ZRANGEBYSCORE', 'ended:' .. TAG, '-inf', NOWS, 'LIMIT', 0, limit)) do
  call('ZREM', 'ended:' .. TAG, id)
  call('ZREM', 'runs:' .. TAG, id)
end
remove(limit)

local roles = call('SMEMBERS', 'roles:' .. TAG)
table.sort(roles)
for _, role in ipairs(roles) do
  local a, places = account(role), 0
  call('ZREMRANGEBYSCORE', K('fair', role), '-inf', fl(a.v))
  local held = call('ZRANGE', K('capped', role), 0, limit - 1)
  for _, tenant in ipairs(held) do                  -- the cap may have been raised or taken away
    if num(a.cap) <= 0 or num(call('HGET', K('running', role), tenant)) < a.cap then uncap(a, tenant) end
  end
  local pool = call('HGETALL', K('pool', role))
  for i = 1, #pool, 2 do
    local n, expires = string.match(pool[i + 1], '^(%d+):(%d+)$')
    if tonumber(expires) <= NOW then call('HDEL', K('pool', role), pool[i]) else places = places + tonumber(n) end
  end
  local window = places > 0 and max(4, 2 * places) or 0
  if window ~= a.window then
    a.window = window
    call('HSET', K('tickets', role), 'window', f0(window))
  end
  local patience = a.patience > 0 and a.patience or tonumber(ARGV[5])
  if a.ready > 0 and NOW - a.since >= patience then
    a.out, a.since, a.patience, a.dirty = 0, NOW, min(patience * 2, 30000000), true
  end
  if a.window > 0 then
    for _ = 1, min(a.ready, a.window, limit) - a.out do offer(a) end
  end
end

local head = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
local first = call('ZRANGE', DEADLINES, 0, 0, 'WITHSCORES')
local look = min(tonumber(head[2] or 'inf') or math.huge, tonumber(first[2] or 'inf') or math.huge)
if call('EXISTS', DROPS) == 1 then look = NOW end
return reply(1, moved, look == math.huge and '' or f0(look), expired, dead)
