-- pool_beat: a worker says it lives: places, ticket template; the role's window follows.
-- Twin: techrevati.store.twin.coordinate.pool_beat
-- include: _unit _homes
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  role
-- ARGV[4]  worker
-- ARGV[5]  places     turns it can hold; 0 = it leaves
-- ARGV[6]  ttl        us until it counts as gone
-- ARGV[7]  template   a ticket's bytes, with @TICKET@ for its id; '' where the broker is another server
-- returns  {1, wanted, window, ready}
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local a, pool = account(ARGV[3]), K('pool', ARGV[3])
if ARGV[5] == '0' then call('HDEL', pool, ARGV[4]) else
  call('HSET', pool, ARGV[4], ARGV[5] .. ':' .. f0(NOW + tonumber(ARGV[6])))
end
local places, entries = 0, call('HGETALL', pool)
for i = 1, #entries, 2 do
  local n, expires = string.match(entries[i + 1], '^(%d+):(%d+)$')
  if tonumber(expires) > NOW then places = places + tonumber(n) end
end
a.window = places > 0 and math.max(4, 2 * places) or 0
call('HSET', K('tickets', a.role), 'window', f0(a.window))
if ARGV[5] ~= '0' and ARGV[7] ~= (a.template or '') then   -- who leaves has no say in how the others are called
  a.template = ARGV[7] ~= '' and ARGV[7]
  if a.template then call('HSET', K('tickets', a.role), 'template', a.template)
  else call('HDEL', K('tickets', a.role), 'template') end
end
a.dirty = true
for _ = 1, math.min(a.ready, a.window, 128) - a.out do offer(a) end
return reply(1, f0(a.window), f0(a.ready))
