-- run_renew: prolong leases, in a batch; say which are lost and which should stop.
-- Twin: techrevati.store.twin.lease.run_renew
-- include: _unit
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  ttl        us
-- ARGV[4...] run id, token   <= 256 pairs
-- returns  {1, {}, code per pair}: 1 renewed, 2 renewed and to be cancelled, 0 lost
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local ttl, codes = tonumber(ARGV[3]), {}
for i = 4, #ARGV, 2 do
  local v = call('HMGET', K('run', ARGV[i]), 'token', 'cancel', 'cancel_by')
  local code = 0
  if ARGV[i + 1] ~= '' and v[1] == ARGV[i + 1] then -- expired but not claimed again is still the holder's
    local until_, stop = NOW + ttl, v[2] and v[2] ~= ''
    if stop then until_ = math.min(until_, tonumber(v[3])) end
    call('ZADD', DUE, 'XX', f0(until_), ARGV[i])
    code = stop and 2 or 1
  end
  codes[#codes + 1] = code
end
return { 1, {}, codes }
