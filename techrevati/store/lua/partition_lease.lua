-- partition_lease: one coordinator sweeps a partition; its lease runs out with it.
-- Twin: techrevati.store.twin.coordinate.partition_lease
-- include: _unit
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  coordinator
-- ARGV[4]  ttl        us; 0 gives it back
-- returns  {1, _, us} held until, or {0, _, holder, us}
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local key = 'sweeper:' .. TAG
local held = call('HMGET', key, 'holder', 'until')
if held[1] and held[1] ~= ARGV[3] and tonumber(held[2]) > NOW then return { 0, {}, held[1], held[2] } end
if ARGV[4] == '0' then
  if held[1] == ARGV[3] then call('DEL', key) end
  return { 1, {}, NOWS }
end
local until_ = f0(NOW + tonumber(ARGV[4]))
call('HSET', key, 'holder', ARGV[3], 'until', until_)
call('PEXPIRE', key, ms(tonumber(ARGV[4]) + 60000000))
return { 1, {}, until_ }
