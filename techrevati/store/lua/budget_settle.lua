-- budget_settle: put what a call did cost in the place of what was reserved for it, once.
-- Twin: techrevati.store.twin.budgets.budget_settle
-- include: _clock _budget
--
-- KEYS[1]  book       the tenant's budgets
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  call id
-- ARGV[4]  usd        micro-dollars, may be over the estimate
-- ARGV[5]  tokens
-- ARGV[6]  how        settle; release: the call was not made, both amounts are 0
-- returns  {1, _, state} done: settled, released, or corrected after it was written off,
--          {0, _, state} it was done before, {-21} no such reservation, or long ago
local refused = open_book(ARGV[1], ARGV[2])
if refused then return refused end
local r, actual = reservation(ARGV[3]), { usd = tonumber(ARGV[4]), tokens = tonumber(ARGV[5]) }
if not r then
  expire()
  return reply(-21)
end
if r.st ~= 'open' and r.st ~= 'off' then return { 0, {}, r.st } end
local st = r.st == 'off' and 'corrected' or ARGV[6] == 'release' and 'released' or 'settled'
close(r, st, actual)
expire()
return reply(1, st)
