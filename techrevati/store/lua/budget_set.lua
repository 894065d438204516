-- budget_set: an operator's limit, or thresholds, in place of what the code declares.
-- Twin: techrevati.store.twin.budgets.budget_set
-- include: _clock _budget
--
-- KEYS[1]  book       the tenant's budgets
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  level
-- ARGV[4]  name       an account, or "at"
-- ARGV[5]  value      micro-dollars or tokens; percents "50,80,100"; "-" no limit; '' what the code declares
-- returns  {1, _} changed, {0, _} it was so
local refused = open_book(ARGV[1], ARGV[2])
if refused then return refused end
local l, name, value = level(ARGV[3], true), ARGV[4], ARGV[5]
if (l.f['set.' .. name] or '') == value then return reply(0) end
put(l, 'set.' .. name, value)
if value == '' then l.f['set.' .. name] = nil end
for _, a in ipairs(ACCOUNTS) do
  if name == a.name or name == 'at' then             -- another limit is told about anew
    if l.f[a.n] then put(l, a.n, '0') end
    if l.f[a.b] then put(l, a.b, '0') end
    tell(l, a)
  end
end
log('budget_set', 'level', l.id, 'account', name, 'value', value)
expire()
return reply(1)
