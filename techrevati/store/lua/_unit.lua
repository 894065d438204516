-- Unit of work: names, clock, records.  Loads each record once, writes each once, at `reply`.
-- Mirrors: techrevati.store.keys.PartitionKeys (names), techrevati.store.twin.unit (the rest)
local TAG = string.sub(KEYS[1], 7)                  -- KEYS[1] is "clock:{fleet:p}"
local DUE, ROUTES, DEADLINES = 'due:' .. TAG, 'routes:' .. TAG, 'deadlines:' .. TAG
local MID = ':' .. TAG .. ':'
local call, max, min = redis.call, math.max, math.min
local NOW, NOWS, RUN_TTL, THREAD_TTL                -- us, the same as text, ms, ms

local function K(kind, id) return kind .. MID .. id end
local function f0(n)                                -- `..` is exact to 14 digits, %.0f to 2^53
  if n < 1e14 then return n .. '' end
  return string.format('%.0f', n)
end
local function fl(n) return string.format('%.17g', n) end
local function num(v) return tonumber(v) or 0 end
local function ms(us) return f0(max(1, math.ceil(us / 1000))) end

-- Refuse an old caller, then read a clock that never falls (a failover may step the server's back).
local function enter(proto, given)
  local part = call('HMGET', KEYS[1], 'us', 'min', 'run_ttl', 'thread_ttl')
  if part[2] and tonumber(proto) < tonumber(part[2]) then return { -10, {}, part[2] } end
  local before = tonumber(part[1]) or 0
  if given ~= '' then NOW = tonumber(given) else
    local t = call('TIME')
    NOW = t[1] * 1000000 + t[2]
  end
  if before > NOW then NOW = before end
  NOWS = f0(NOW)
  RUN_TTL = tonumber(part[3]) or 604800000          -- 7 days
  THREAD_TTL = tonumber(part[4]) or 2592000000      -- 30 days
  if NOW >= before + 10000 then call('HSET', KEYS[1], 'us', NOWS) end
end

-- "+5000000" is from now, "=17..." is absolute, "" is none; all in us.
local function when(text)
  local sign, rest = string.sub(text, 1, 1), string.sub(text, 2)
  if sign == '+' then return NOW + tonumber(rest) end
  if sign == '=' then return tonumber(rest) end
end

-- A record that is read when asked and written at `reply`; what stays as it was is not written.
local function put(record, field, value, ...)
  if rawget(record, field) ~= value then
    record[field] = value
    local dirty = record.dirty
    local n = #dirty
    dirty[n + 1], dirty[n + 2] = field, value
  end
  if ... then return put(record, ...) end
end

-- Runs: what nearly every script needs is read at once, the rest when a script asks for it.
local RUNS, ORDER = {}, {}
local LAZY = { __index = function(r, field)
  local v = call('HGET', K('run', r.id), field) or ''
  rawset(r, field, v)
  return v
end }
local function run_of(id)
  local r = RUNS[id]
  if r ~= nil then return r or nil end
  local v = call('HMGET', K('run', id), 'tenant', 'thread', 'role', 'home', 'token', 'turn', 'seq', 'score', 'attempt',
    'maxa', 'wakes', 'cancel', 'j', 'counted', 'status', 'why', 'until', 'fails', 'parent')
  if not v[1] then
    RUNS[id] = false
    return nil
  end
  r = setmetatable({ id = id, dirty = {}, tenant = v[1], thread = v[2] or '', role = v[3] or '', home = v[4] or '',
    token = v[5] or '', turn = v[6] or '', seq = v[7] or '', score = v[8] or '', attempt = v[9] or '',
    maxa = v[10] or '', wakes = v[11] or '', cancel = v[12] or '', j = v[13] or '', counted = v[14] or '',
    status = v[15] or '', why = v[16] or '', ['until'] = v[17] or '', fails = v[18] or '',
    parent = v[19] or '' }, LAZY)
  RUNS[id], ORDER[#ORDER + 1] = r, r
  return r
end
local function run_new(id)
  local r = setmetatable({ id = id, dirty = {} }, { __index = function() return '' end })
  RUNS[id], ORDER[#ORDER + 1] = r, r
  return r
end
-- Read fields that a script is about to ask for, in one command.
local function need(r, ...)
  local v = call('HMGET', K('run', r.id), ...)
  for i, field in ipairs({ ... }) do
    if rawget(r, field) == nil then rawset(r, field, v[i] or '') end
  end
end
local function terminal(r) return r.home == '' end
-- A call of a tool that runs in a pool of its own: its parent made it, and shows it.
local function is_tool(r) return string.sub(r.agent, 1, 5) == 'tool:' end
local function leased(r) return r.home == 'due' and r.token ~= '' end

-- Threads.
local THREADS = {}
local function tkey(r) return r.tenant .. ':' .. r.thread end
local function thread_of(r)
  local name = tkey(r)
  local t = THREADS[name]
  if t then return t end
  local v = call('HMGET', K('thread', name), 'version', 'commit', 'fence', 'active', 'n', 'spans', 'bytes', 'worker',
    'full', 'since', 'ttl', 'base')
  t = { name = name, dirty = {}, version = v[1] or '', commit = v[2] or '', fence = v[3] or '', active = v[4] or '',
    n = v[5] or '', spans = v[6] or '', bytes = v[7] or '', worker = v[8] or '', full = v[9] or '',
    since = v[10] or '', ttl = v[11] or '', base = v[12] or '' }
  THREADS[name] = t
  return t
end

-- Role accounts.
local ACCOUNTS = {}
local function account(role)
  local a = ACCOUNTS[role]
  if a then return a end
  local v = call('HMGET', K('tickets', role), 'out', 'ready', 'last', 'window', 'v', 'patience', 'since', 'n', 'cap',
    'template')
  a = { role = role, out = num(v[1]), ready = num(v[2]), last = num(v[3]), window = num(v[4]), v = num(v[5]),
    patience = num(v[6]), since = num(v[7]), n = num(v[8]), cap = tonumber(v[9] or nil), template = v[10] }
  a.was = { out = v[1] and a.out, ready = v[2] and a.ready, last = v[3] and a.last, patience = v[6] and a.patience,
    n = v[8] and a.n }
  if not v[2] then call('SADD', 'roles:' .. TAG, role) end
  ACCOUNTS[role] = a
  return a
end

-- One durable event of a run; `by` is the claim that wrote it, '-' for anyone else.
local function event(r, by, kind, ...)
  put(r, 'seq', f0(num(r.seq) + 1))
  r.woken = r.seq
  call('XADD', K('events', r.id), 'MAXLEN', '~', 10000, r.seq .. '-0', 'type', kind, 'at', NOWS, 'c', by, ...)
end
local function by_of(token) return string.sub(token, -8) end

-- Write what changed, wake who listens, answer {code, roles that want a ticket sent, ...}.
local WANTED = {}
local function reply(code, ...)
  for _, r in ipairs(ORDER) do
    if r.dirty[1] then call('HSET', K('run', r.id), unpack(r.dirty)) end
    if rawget(r, 'woken') then call('PUBLISH', K('wake', r.id), r.woken) end
  end
  for _, t in pairs(THREADS) do
    if t.dirty[1] then call('HSET', K('thread', t.name), unpack(t.dirty)) end
  end
  for _, a in pairs(ACCOUNTS) do
    if a.dirty then
      local changed = { 'v', fl(a.v), 'since', f0(a.since) }
      for field, was in pairs(a.was) do
        if a[field] ~= was then
          changed[#changed + 1] = field
          changed[#changed + 1] = f0(a[field])
        end
      end
      call('HSET', K('tickets', a.role), unpack(changed))
    end
  end
  return { code, WANTED, ... }
end
