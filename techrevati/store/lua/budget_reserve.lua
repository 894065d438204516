-- budget_reserve: set aside what a call may cost at every level, or at none.
-- Twin: techrevati.store.twin.budgets.budget_reserve
-- include: _clock _budget
--
-- KEYS[1]  book       the tenant's budgets
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  call id    sent again, it changes nothing
-- ARGV[4]  ttl        us; longer than the call may take
-- ARGV[5]  usd        micro-dollars
-- ARGV[6]  tokens
-- ARGV[7...] level, declared  narrowest first; "usd.day=5000000 at=50,80" or ''
-- returns  {1, _, expires, 'open', looks} or {0, _, expires, state, looks} it was there,
--          {-20, _, level, account, limit, spent, reserved, window}
local refused = open_book(ARGV[1], ARGV[2])
if refused then return refused end
local id, exp, usd, tokens = ARGV[3], f0(NOW + tonumber(ARGV[4])), tonumber(ARGV[5]), tonumber(ARGV[6])
local known = call('HMGET', BOOK .. ':call:' .. id, 'exp', 'st')
local looks = call('HGET', BOOK, 'looks') or '0'
if known[1] then return { 0, {}, known[1], known[2], looks } end
expire()
local names, levels = {}, {}
for i = 7, #ARGV, 2 do
  local l = level(ARGV[i], true)
  names[#names + 1], levels[#levels + 1] = l.id, l
  if (l.f.declared or '') ~= ARGV[i + 1] then
    put(l, 'declared', ARGV[i + 1])
    l.declared = nil
  end
end
local asked = { usd = usd, tokens = tokens }
for _, l in ipairs(levels) do
  for _, a in ipairs(ACCOUNTS) do
    local more = asked[a.unit]
    local top = more > 0 and limit(l, a)
    local spent, reserved = num(l.f[a.s]), num(l.f[a.r])
    if top and spent + reserved + more > top then
      local window = l.f[a.window] or ''
      if num(l.f[a.b]) == 0 then                     -- told once in a window
        put(l, a.b, '1')
        log('budget_refused', 'level', l.id, 'account', a.name, 'call', id, 'asked', f0(more), 'limit', f0(top),
          'spent', f0(spent), 'reserved', f0(reserved), 'window', window)
      end
      return reply(-20, l.id, a.name, f0(top), f0(spent), f0(reserved), window)
    end
  end
end
local made = { day = DAY, month = MONTH }
for _, l in ipairs(levels) do
  for _, unit in ipairs(UNITS) do move(l, unit, asked[unit], 0, made) end
end
call('HSET', BOOK .. ':call:' .. id, 'st', 'open', 'usd', f0(usd), 'tokens', f0(tokens), 'exp', exp, 'day', DAY,
  'month', MONTH, 'levels', table.concat(names, '\n'))
call('PEXPIRE', BOOK .. ':call:' .. id, LONG)
call('ZADD', BOOK .. ':open', exp, id)
call('PEXPIRE', BOOK .. ':open', LONG)
return reply(1, exp, 'open', looks)
