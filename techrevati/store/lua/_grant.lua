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
    'project', 'parent', 'inbox_n', 'created')
  return { r.id, r.token, f0(lease_us), f0(NOW), { r.tenant, r.thread, r.role, r.turn, r.attempt, r.maxa, r.cancel },
    more, more[11] and call('HGETALL', K('inbox', r.id)), r.j ~= '' and call('HGETALL', K('journal', r.id)), { t.version, t.commit, t.n, t.spans, t.full, t.since, t.bytes },
    entries, messages }
end

local function pick(a, lane_free)
  if lane_free then
    local last = call('ZPOPMIN', K('last', a.role))
    if last[1] then return run_of(last[1]) end
  end
  for _ = 1, 128 do                                 -- only tenants at their cap are passed over, once each
    local head = call('ZRANGE', K('ready', a.role), 0, 0, 'WITHSCORES')
    if not head[1] then return nil end
    local tenant, tag = head[1], tonumber(head[2])
    if a.cap and a.cap > 0 and num(call('HGET', K('running', a.role), tenant)) >= a.cap then
      call('ZREM', K('ready', a.role), tenant)
      call('ZADD', K('capped', a.role), head[2], tenant)
    else
      local runs = K('ready', a.role .. ':' .. tenant)
      local popped = call('ZPOPMIN', runs)
      local weight = tonumber(call('HGET', 'weights:' .. TAG, tenant) or 1)
      if tag > a.v then
        a.v = tag
        call('ZREMRANGEBYSCORE', K('fair', a.role), '-inf', fl(tag))
      end
      local finish_tag = fl(tag + 1 / weight)
      if call('EXISTS', runs) == 1 then
        call('ZADD', K('ready', a.role), finish_tag, tenant)
      else
        call('ZREM', K('ready', a.role), tenant)
        call('ZADD', K('fair', a.role), finish_tag, tenant)
      end
      return run_of(popped[1])
    end
  end
end

local function grant(role, claim_id, worker, ttl, lane_free, inline)
  local again = call('GET', K('claim', claim_id))   -- the reply was lost: the same grant once more
  if again then
    local r = run_of(again)
    if not r or r.home ~= 'due' or string.sub(r.token, -#claim_id) ~= claim_id then return false end
    return granted(r, num(call('ZSCORE', DUE, r.id)), worker, inline)
  end
  local a = account(role)
  local r = pick(a, lane_free)
  if not r then return false end
  a.ready, a.dirty, a.since, a.patience = a.ready - 1, true, NOW, 0
  local t, lease = thread_of(r), NOW + ttl
  put(t, 'fence', f0(max(num(t.fence) + 1, math.floor(NOW / 1000))))
  local lane = r.home == 'last' and '1' or ''
  put(r, 'token', t.fence .. '.' .. claim_id, 'home', 'due', 'status', 'running', 'worker', worker, 'why', 'lease',
    'lane', lane)
  call('ZADD', DUE, f0(lease), r.id)
  running(r, 1)
  event(r, by_of(r.token), 'turn.started', 'role', r.role, 'turn', r.turn, 'attempt', f0(num(r.attempt) + 1),
    'worker', worker)
  call('SET', K('claim', claim_id), r.id, 'PX', f0(ttl / 1000))
  offer(a)
  return granted(r, lease, worker, inline)
end
