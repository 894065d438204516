-- Homes: where a run that is not terminal stands, and how it gets there and leaves.
-- Twin: techrevati.store.twin.homes

local function fleet_of() return string.match(TAG, '^{(.*):(%d+)}$') end

-- Tickets.  `sure` sends one although the account says enough are out: a dead worker may have held them.
local function offer(a, sure)
  if a.window > 0 and a.ready > 0 and (sure or a.out < min(a.ready, a.window)) then
    a.out, a.dirty = a.out + 1, true
    if a.template then
      local fleet, part = fleet_of()
      a.n = a.n + 1
      call('LPUSH', fleet .. '.role.' .. a.role, (string.gsub(a.template, '@TICKET@', part .. '-' .. f0(a.n))))
    else
      WANTED[#WANTED + 1] = a.role
    end
  end
end

-- Ready, two levels.  A tenant stands in `ready:role` (or `capped:role`) exactly while it has ready runs;
-- otherwise `fair:role` remembers its finish tag, for as long as that is ahead of V.
-- Runs go by when they were first ready; a priority is worth 30 s of waiting, a turn already had costs 5 s of it.
local function ready_add(r, quiet)
  local a = account(r.role)
  if r.score == '' then put(r, 'score', f0(NOW - num(r.priority) * 30000000)) end
  if num(r.maxa) > 1 and num(r.attempt) >= num(r.maxa) - 1 then
    put(r, 'home', 'last', 'status', 'queued', 'why', '', 'until', '')
    call('ZADD', K('last', r.role), r.score, r.id)
    a.last = a.last + 1
  else
    put(r, 'home', 'ready', 'status', 'queued', 'why', '', 'until', '')
    local runs = K('ready', r.role .. ':' .. r.tenant)
    call('ZADD', runs, f0(num(r.score) + max(0, num(r.turn) - 1) * 5000000), r.id)
    if call('ZCARD', runs) == 1 then
      local finish = num(call('ZSCORE', K('fair', r.role), r.tenant))
      if finish > 0 then call('ZREM', K('fair', r.role), r.tenant) end
      call('ZADD', K('ready', r.role), fl(max(a.v, finish)), r.tenant)
    end
  end
  if a.ready == 0 then a.since = NOW end
  a.ready, a.dirty = a.ready + 1, true
  if not quiet then offer(a) end
end

local function tenant_gone(a, tenant)
  local tag = call('ZSCORE', K('ready', a.role), tenant)
  if tag then call('ZREM', K('ready', a.role), tenant) else
    tag = call('ZSCORE', K('capped', a.role), tenant)
    call('ZREM', K('capped', a.role), tenant)
  end
  if num(tag) > a.v then call('ZADD', K('fair', a.role), tag, tenant) end
end

-- A tenant below its cap again competes with the tag it had.
local function uncap(a, tenant)
  local tag = call('ZSCORE', K('capped', a.role), tenant)
  if tag then
    call('ZREM', K('capped', a.role), tenant)
    call('ZADD', K('ready', a.role), tag, tenant)
    offer(a)
  end
end

-- Turns running now are counted where a cap was set, and only those claimed since.
local function running(r, delta)
  if delta > 0 then
    if not account(r.role).cap then return end
    put(r, 'counted', '1')
  else
    if r.counted ~= '1' then return end
    put(r, 'counted', '')
  end
  local n = call('HINCRBY', K('running', r.role), r.tenant, delta)
  if n <= 0 then call('HDEL', K('running', r.role), r.tenant) end
  if delta < 0 then uncap(account(r.role), r.tenant) end
end

-- Stand in `due`: look again at `at` (us, or +inf), because of `why`.
local function due_add(r, at, why)
  local never = at == math.huge
  put(r, 'home', 'due', 'status', 'waiting', 'why', why, 'until', never and '' or f0(at))
  call('ZADD', DUE, never and '+inf' or f0(at), r.id)
end

-- Stand in `routes`, and wake a coordinator.  Its list is bounded: an entry says only "look".
local function routes_add(r)
  put(r, 'home', 'routes', 'status', 'waiting', 'why', 'handoff', 'until', '')
  call('ZADD', ROUTES, NOWS, r.id)
  local fleet, part = fleet_of()
  local bell = fleet .. '.coordinator'
  local rung = redis.pcall('LLEN', bell)            -- on a cluster it lies elsewhere: there coordinators poll
  if type(rung) == 'number' and rung < 1024 then call('LPUSH', bell, part) end
end

local function line_add(r)
  put(r, 'home', 'line', 'status', 'queued', 'why', '', 'until', '')
  call('RPUSH', K('line', tkey(r)), r.id)
end

local function leave(r)
  if r.home == 'ready' then
    local a, runs = account(r.role), K('ready', r.role .. ':' .. r.tenant)
    call('ZREM', runs, r.id)
    if call('EXISTS', runs) == 0 then tenant_gone(a, r.tenant) end
    a.ready, a.dirty = a.ready - 1, true
  elseif r.home == 'last' then
    local a = account(r.role)
    call('ZREM', K('last', r.role), r.id)
    a.ready, a.last, a.dirty = a.ready - 1, a.last - 1, true
  elseif r.home == 'due' then
    call('ZREM', DUE, r.id)
    if r.token ~= '' then
      put(r, 'token', '')
      running(r, -1)
    end
  elseif r.home == 'routes' then
    call('ZREM', ROUTES, r.id)
  elseif r.home == 'line' then
    call('LREM', K('line', tkey(r)), 1, r.id)
  end
end

-- A run becomes the active one of its thread: what a rollback would return to is noted now.
local function activate(r, quiet)
  local t = thread_of(r)
  put(t, 'active', r.id)
  if t.ttl ~= '' then
    put(t, 'ttl', '')
    for _, kind in ipairs({ 'thread', 'msgs', 'ckpt', 'runsof' }) do call('PERSIST', K(kind, t.name)) end
  end
  put(r, 'v0', t.version, 'f0', t.full, 'k0', t.base ~= '' and t.base or t.full)
  if r.resume == 'routes' then                      -- sent back after its handoff could not be placed
    put(r, 'resume', '')
    routes_add(r)
  elseif num(r.next_at) > NOW then due_add(r, tonumber(r.next_at), 'start') else ready_add(r, quiet) end
end
