-- Grant: lease the fairest ready run of a role.
-- Twin: techrevati.store.twin.grant

-- Everything a worker needs to run a turn, in one answer.
local function granted(r, lease_us, worker, inline)
  local t = thread_of(r)
  local entries, messages = false, false
  if num(t.version) > 0 and t.worker ~= worker and num(t.bytes) <= inline then
    entries = call('XRANGE', K('ckpt', t.name), t.full .. '-0', '+')
    messages = call('LRANGE', K('msgs', t.name), 0, -1)
  end
  local more = call('HMGET', K('run', r.id), 'agent', 'fails', 'hops', 'input', 'handed', 'meta', 'trace', 'deadline',
    'project', 'parent', 'inbox_n', 'created', 'root')
  return { r.id, r.token, f0(lease_us), NOWS, { r.tenant, r.thread, r.role, r.turn, r.attempt, r.maxa, r.cancel },
    more, more[11] and call('HGETALL', K('inbox', r.id)), r.j ~= '' and call('HGETALL', K('journal', r.id)),
    { t.version, t.commit, t.n, t.spans, t.full, t.since, t.bytes }, entries, messages }
end

local function pick(a, lane_free)
  if lane_free and a.last > 0 then
    local last = call('ZPOPMIN', K('last', a.role))
    if last[1] then
      a.last = a.last - 1
      return run_of(last[1])
    end
  end
  local tags = K('ready', a.role)
  for _ = 1, 128 do                                 -- only tenants at their cap are passed over, once each
    local head = call('ZRANGE', tags, 0, 0, 'WITHSCORES')
    if not head[1] then return nil end
    local tenant, tag = head[1], tonumber(head[2])
    if a.cap and a.cap > 0 and num(call('HGET', K('running', a.role), tenant)) >= a.cap then
      call('ZREM', tags, tenant)
      call('ZADD', K('capped', a.role), head[2], tenant)
    else
      local runs = K('ready', a.role .. ':' .. tenant)
      local popped = call('ZPOPMIN', runs)
      local weight = tonumber(call('HGET', 'weights:' .. TAG, tenant) or 1)
      if tag > a.v then a.v = tag end
      local finish_tag = fl(tag + 1 / weight)
      if call('EXISTS', runs) == 1 then
        call('ZADD', tags, finish_tag, tenant)
      else
        call('ZREM', tags, tenant)
        call('ZADD', K('fair', a.role), finish_tag, tenant)
      end
      return run_of(popped[1])
    end
  end
end

-- Charge a tenant what a turn cost beyond the 1 that its claim charged.
local function charge(r, cost)
  local by_weight = cost / tonumber(call('HGET', 'weights:' .. TAG, r.tenant) or 1)
  for _, kind in ipairs({ 'ready', 'capped', 'fair' }) do
    local tags = K(kind, r.role)
    if call('ZSCORE', tags, r.tenant) then
      call('ZINCRBY', tags, fl(by_weight), r.tenant)
      return
    end
  end
end

local function grant(role, claim_id, worker, ttl, lane_free, inline, ticket)
  local again = call('GET', K('claim', claim_id))   -- the reply was lost: the same grant once more
  if again then
    local r = run_of(again)
    if not r or not leased(r) or string.match(r.token, '^%d+%.(.*)$') ~= claim_id then return false end
    return granted(r, num(call('ZSCORE', DUE, r.id)), worker, inline)
  end
  local a = account(role)
  if ticket and a.out > 0 then a.out, a.dirty = a.out - 1, true end
  local r = pick(a, lane_free)
  if not r then return false end
  a.ready, a.dirty, a.since, a.patience = a.ready - 1, true, NOW, 0
  local t, lease = thread_of(r), NOW + ttl
  put(t, 'fence', f0(max(num(t.fence) + 1, math.floor(NOW / 1000))))
  put(r, 'token', t.fence .. '.' .. claim_id, 'home', 'due', 'status', 'running', 'worker', worker, 'why', 'lease')
  call('ZADD', DUE, f0(lease), r.id)
  if r.cancel ~= '' then put(r, 'cancel_by', f0(NOW + num(r.grace))) end
  running(r, 1)
  event(r, by_of(r.token), 'turn.started', 'role', r.role, 'turn', r.turn, 'attempt', f0(num(r.attempt) + 1),
    'worker', worker)
  call('SET', K('claim', claim_id), r.id, 'PX', ms(ttl))
  offer(a)
  return granted(r, lease, worker, inline)
end
