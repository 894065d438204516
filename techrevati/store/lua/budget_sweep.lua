-- budget_sweep: write off what expired while the tenant did not call, and say when to look again.
-- Twin: techrevati.store.twin.budgets.budget_sweep
-- include: _clock _budget
--
-- KEYS[1]  book       the tenant's budgets
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- returns  {1, _, written off, open reservations, when the next expires or ''}, {0} there are no such books
if call('EXISTS', KEYS[1]) == 0 then return { 0, {} } end
local refused = open_book(ARGV[1], ARGV[2])
if refused then return refused end
local done = expire(64)
local first = call('ZRANGE', BOOK .. ':open', 0, 0, 'WITHSCORES')
if not first[1] then call('HINCRBY', BOOK, 'looks', 1) end
return reply(1, done, call('ZCARD', BOOK .. ':open'), first[2] and f0(tonumber(first[2])) or '')
