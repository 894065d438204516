-- Budgets of one tenant: levels that count, reservations that are leases, a log of what was noticed.
-- Twin: techrevati.store.twin.budgets
--
-- KEYS[1]         "budget:{fleet/tenant}"  hash: us, min, seq (entries in the log), looks (that found nothing open)
-- ..:level:<id>   hash: day, month (the windows counted in), declared, set.<account>, set.at,
--                 <account>.s spent, .r reserved, .n percent told, .b a refusal was told; an account
--                 is <usd|tokens>.<total|day|month>;
--                 <unit>.x written off and not corrected
-- ..:call:<id>    hash: st (open|settled|released|off|corrected), usd, tokens, exp, day, month, levels, and what it
--                 was charged with in the end: paid "<usd> <tokens>"
-- ..:open         sorted set: open reservations by expiry
-- ..:log          stream;   ..:projects  sorted set: projects by the day they were last used
local BOOK = KEYS[1]
local UNITS = { 'usd', 'tokens' }
local ACCOUNTS, OF = {}, { usd = {}, tokens = {} }    -- their field names are made once, not at every use
for _, unit in ipairs(UNITS) do
  for _, window in ipairs({ 'total', 'day', 'month' }) do
    local name = unit .. '.' .. window
    local a = { name = name, unit = unit, window = window, s = name .. '.s', r = name .. '.r', n = name .. '.n',
      b = name .. '.b', set = 'set.' .. name }
    ACCOUNTS[#ACCOUNTS + 1] = a
    OF[unit][#OF[unit] + 1] = a
  end
end
local SWEPT, LOGGED = 16, 1000
local KEPT, LATE, LONG = '900000', '86400000', '34560000000'         -- ms: 15 min, 1 day, 400 days
local LIVES = { run = '691200000', thread = '2678400000' }           -- ms: 8 and 31 days without use
local DAY, MONTH

-- The UTC day since the epoch, and the month since year 0.
-- Source: H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
local function calendar()
  local day = floor(NOW / 86400000000)
  local z = day + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  DAY = f0(day)
  MONTH = f0((yoe + era * 400) * 12 + mp + 2)        -- March is 2, so January and February run over
end

local function put(l, field, value)
  if l.f[field] ~= value then l.f[field], l.dirty[field] = value, value end
end

local function log(kind, ...)
  local seq = call('HINCRBY', BOOK, 'seq', 1)
  call('XADD', BOOK .. ':log', 'MAXLEN', '~', LOGGED, f0(seq) .. '-0', 'type', kind, 'at', NOWS, ...)
end

-- Levels are read once and written at `reply`; a window that is over begins at nothing.
local LEVELS, ORDER = {}, {}
local function roll(l, window, now)
  if l.f[window] == now then return end
  local f = l.f
  for _, a in ipairs(ACCOUNTS) do
    if a.window == window then
      if f[a.s] then put(l, a.s, '0') end
      if f[a.r] then put(l, a.r, '0') end
      if f[a.n] then put(l, a.n, '0') end
      if f[a.b] then put(l, a.b, '0') end
    end
  end
  put(l, window, now)
  l.used = true
end
local function level(id, make)
  local l = LEVELS[id]
  if not l then
    local f, flat = {}, call('HGETALL', BOOK .. ':level:' .. id)
    for i = 1, #flat, 2 do f[flat[i]] = flat[i + 1] end
    l = { id = id, f = f, dirty = {}, known = flat[1] ~= nil }
    LEVELS[id], ORDER[#ORDER + 1] = l, l
    if l.known then
      roll(l, 'day', DAY)
      roll(l, 'month', MONTH)
    end
  end
  if make and not l.known then
    l.known = true
    roll(l, 'day', DAY)
    roll(l, 'month', MONTH)
  end
  return l
end

-- What the code declared ("usd.day=5000000 at=50,80"), unless an operator set something else ("-" is no limit).
local function says(l, set, name)
  if l.f[set] then return l.f[set] end
  if not l.declared then
    l.declared = {}
    for key, value in string.gmatch(l.f.declared or '', '(%S+)=(%S+)') do l.declared[key] = value end
  end
  return l.declared[name]
end
local function limit(l, a) return tonumber(says(l, a.set, a.name) or nil) end

local function tell(l, a)
  local top = limit(l, a)
  if not top then return end
  local spent, told = num(l.f[a.s]), num(l.f[a.n])
  for text in string.gmatch(says(l, 'set.at', 'at') or '50,80,100', '%d+') do
    local percent = tonumber(text)
    if percent > told and spent >= top * percent / 100 then
      put(l, a.n, text)
      log('budget_threshold', 'level', l.id, 'account', a.name, 'percent', text, 'limit', f0(top),
        'spent', f0(spent), 'reserved', l.f[a.r] or '0', 'window', l.f[a.window] or '')
    end
  end
end

-- A cost belongs to the windows its reservation was made in; one that is over is not counted any more.
local function move(l, unit, reserved, spent, made)
  if reserved == 0 and spent == 0 then return end
  local f = l.f
  for _, a in ipairs(OF[unit]) do
    if a.window == 'total' or made[a.window] == f[a.window] then
      if reserved ~= 0 then put(l, a.r, f0(max(0, num(f[a.r]) + reserved))) end
      if spent ~= 0 then put(l, a.s, f0(max(0, num(f[a.s]) + spent))) end
      if spent > 0 then tell(l, a) end
    end
  end
end

local function reservation(id)
  local v = call('HMGET', BOOK .. ':call:' .. id, 'st', 'usd', 'tokens', 'exp', 'day', 'month', 'levels')
  if not v[1] then return nil end
  local r = { id = id, st = v[1], usd = num(v[2]), tokens = num(v[3]), exp = v[4], day = v[5], month = v[6], levels = {} }
  for name in string.gmatch(v[7] or '', '[^\n]+') do r.levels[#r.levels + 1] = name end
  return r
end

-- Replace what a reservation counts for: `actual` nil charges the estimate, because the call may have been made.
local function close(r, st, actual)
  local off = r.st == 'off'
  for _, id in ipairs(r.levels) do
    local l = level(id)
    if l.known then
      for _, unit in ipairs(UNITS) do
        local estimate = r[unit]
        if not actual then
          move(l, unit, -estimate, estimate, r)
          if estimate > 0 then put(l, unit .. '.x', f0(num(l.f[unit .. '.x']) + estimate)) end
        elseif off then
          move(l, unit, 0, actual[unit] - estimate, r)
          if estimate > 0 then put(l, unit .. '.x', f0(max(0, num(l.f[unit .. '.x']) - estimate))) end
        else
          move(l, unit, -estimate, actual[unit], r)
        end
      end
    end
  end
  local paid = f0(actual and actual.usd or r.usd) .. ' ' .. f0(actual and actual.tokens or r.tokens)
  call('HSET', BOOK .. ':call:' .. r.id, 'st', st, 'paid', paid)
  call('PEXPIRE', BOOK .. ':call:' .. r.id, actual and KEPT or LATE)
  call('ZREM', BOOK .. ':open', r.id)
  if not actual or off then
    log(actual and 'budget_corrected' or 'budget_written_off', 'call', r.id, 'level', r.levels[1] or '',
      'usd', f0(actual and actual.usd or r.usd), 'tokens', f0(actual and actual.tokens or r.tokens),
      'estimate', f0(r.usd) .. ' ' .. f0(r.tokens))
  end
end

-- Write off reservations whose lease is over: a few with each call, so no call pays for many.
local function expire(most)
  local over = call('ZRANGEBYSCORE', BOOK .. ':open', '-inf', NOWS, 'LIMIT', 0, most or SWEPT)
  for _, id in ipairs(over) do
    local r = reservation(id)
    if r then close(r, 'off') else call('ZREM', BOOK .. ':open', id) end
  end
  return #over
end

local function open_book(proto, given)
  local refused = enter(proto, given)
  if refused then return refused end
  if FRESH then call('PEXPIRE', BOOK, LONG) end
  calendar()
end

local function reply(code, ...)
  for _, l in ipairs(ORDER) do
    local name = BOOK .. ':level:' .. l.id
    local flat = {}
    for field, value in pairs(l.dirty) do
      if value == '' then call('HDEL', name, field) else
        flat[#flat + 1] = field
        flat[#flat + 1] = value
      end
    end
    if flat[1] then call('HSET', name, unpack(flat)) end
    if l.used then
      local kind = string.match(l.id, '^%a+')
      call('PEXPIRE', name, LIVES[kind] or LONG)
      call('PEXPIRE', BOOK, LONG)
      call('PEXPIRE', BOOK .. ':log', LONG)
      if kind == 'project' then
        call('ZADD', BOOK .. ':projects', NOWS, l.id)
        call('ZREMRANGEBYSCORE', BOOK .. ':projects', '-inf', f0(NOW - 34560000000000))
        call('PEXPIRE', BOOK .. ':projects', LONG)
      end
    end
  end
  return { code, {}, ... }
end
