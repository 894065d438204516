-- budget_look: what stands in the books, after writing off what expired.
-- Twin: techrevati.store.twin.budgets.budget_look
-- include: _clock _budget
--
-- KEYS[1]  book       the tenant's budgets
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3...] level    as many as shall be shown
-- returns  {1, _, open reservations, when the next expires or '', day, month, {level, field, value, ...}, ...}
local refused = open_book(ARGV[1], ARGV[2])
if refused then return refused end
expire()
local shown = {}
for i = 3, #ARGV do
  local l = level(ARGV[i])
  local flat = { l.id }
  for field, value in pairs(l.f) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  shown[#shown + 1] = flat
end
local first = call('ZRANGE', BOOK .. ':open', 0, 0, 'WITHSCORES')
return reply(1, call('ZCARD', BOOK .. ':open'), first[2] and f0(tonumber(first[2])) or '', DAY, MONTH, unpack(shown))
