// The scripts that SharedLimits runs in Redis (Lua 5.1). Times are Redis' own, in microseconds. A lease's member ends in its
// amount (":12"), so that what ran out can be taken off its total. Every key has a time to live.
#pragma once

#include <string>

namespace sextant::shared_limits {

// A bucket that is not there is full; one that time filled again is not kept. Where Redis' clock goes back nothing is given.
inline constexpr const char* kPrelude = R"lua(
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function level(key, rate, burst)
  local state = redis.call('HMGET', key, 'level', 'us')
  local kept, since = tonumber(state[1]), tonumber(state[2])
  if not kept or not since then return burst end
  return math.min(burst, kept + rate * math.max(0, now - since) / 1000000)
end
local function keep(key, value, rate, burst)
  local since = tonumber(redis.call('HGET', key, 'us')) or 0
  redis.call('HSET', key, 'level', string.format('%.17g', value), 'us', string.format('%.0f', math.max(now, since)))
  redis.call('PEXPIRE', key, math.floor(math.min(604800000, math.max(0, burst - value) / rate * 1000)) + 1000)
end
local function amount_of(member) return tonumber(string.match(member, ':(%d+)$')) or 0 end
local function drop(leases, total, member)
  if redis.call('ZREM', leases, member) == 1 then redis.call('DECRBY', total, amount_of(member)) end
end
local function hold(leases, total, member, ttl)
  if redis.call('ZADD', leases, now / 1000 + ttl, member) == 1 then redis.call('INCRBY', total, amount_of(member)) end
  redis.call('PEXPIRE', leases, ttl + 1000)
  redis.call('PEXPIRE', total, ttl + 1000)
end
local function held(leases, total)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now / 1000)) do drop(leases, total, member) end
  return math.max(0, tonumber(redis.call('GET', total)) or 0)
end
local function text(value) return string.format('%.17g', value) end
)lua";

// KEYS: requests, tokens, leases, their total. ARGV: rate and burst of requests, rate and burst of tokens, most at once, the
// lease, its time to live (ms). Answer: verdict (0, 1 at once, 2 too often), requests left, tokens left.
inline constexpr const char* kCheckRequest = R"lua(
local rate, burst, token_rate, token_burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local most, ttl = tonumber(ARGV[5]), tonumber(ARGV[7])
local left = rate > 0 and level(KEYS[1], rate, burst) or 0
local verdict = 0
if most > 0 and held(KEYS[3], KEYS[4]) >= most then
  verdict = 1
elseif rate > 0 and left + 0.000001 < 1 then
  verdict = 2
else
  if rate > 0 then
    left = left - 1
    keep(KEYS[1], left, rate, burst)
  end
  if most > 0 then hold(KEYS[3], KEYS[4], ARGV[6], ttl) end
end
return {verdict, text(left), text(token_rate > 0 and level(KEYS[2], token_rate, token_burst) or 0)}
)lua";

// KEYS: tokens, used today, leases, their total. ARGV: amount, rate and burst, most per day, what is known to be used, the
// lease, its time to live (ms). Answer: verdict (0, 1 quota, 2 too many), tokens left, spoken for.
inline constexpr const char* kReserve = R"lua(
local amount, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local per_day, ttl = tonumber(ARGV[4]), tonumber(ARGV[7])
local left = rate > 0 and level(KEYS[1], rate, burst) or 0
local spoken = 0
if per_day > 0 then
  spoken = math.max(tonumber(redis.call('GET', KEYS[2])) or 0, tonumber(ARGV[5])) + held(KEYS[3], KEYS[4])
  if spoken + amount > per_day then return {1, text(left), text(spoken)} end
end
if rate > 0 then
  if left + 0.000001 < amount then return {2, text(left), text(spoken)} end
  left = left - amount
  keep(KEYS[1], left, rate, burst)
end
if per_day > 0 then
  hold(KEYS[3], KEYS[4], ARGV[6], ttl)
  spoken = spoken + amount
end
return {0, text(left), text(spoken)}
)lua";

// KEYS: tokens, used today, leases, their total. ARGV: what comes back, rate and burst, tokens used, the lease or nothing.
inline constexpr const char* kSettle = R"lua(
local back, rate, burst, used = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if rate > 0 and back > 0 and redis.call('EXISTS', KEYS[1]) == 1 then
  keep(KEYS[1], math.min(burst, level(KEYS[1], rate, burst) + back), rate, burst)
end
if ARGV[5] ~= '' then drop(KEYS[3], KEYS[4], ARGV[5]) end
if used > 0 then
  redis.call('INCRBY', KEYS[2], ARGV[4])
  redis.call('EXPIRE', KEYS[2], 172800)
end
return 1
)lua";

// KEYS: leases, their total. ARGV: the lease.
inline constexpr const char* kRelease = R"lua(
drop(KEYS[1], KEYS[2], ARGV[1])
return 1
)lua";

// KEYS: leases, their total. ARGV: time to live (ms), leases.
inline constexpr const char* kRenew = R"lua(
for i = 2, #ARGV do hold(KEYS[1], KEYS[2], ARGV[i], tonumber(ARGV[1])) end
return 1
)lua";

}  // namespace sextant::shared_limits
