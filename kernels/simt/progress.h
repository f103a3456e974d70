// Lets enqueued work run though nobody waits for it: a host may wait for its own host function by other means than CUDA's.
#pragma once

namespace sextant::simt {

// From the first call on a thread runs what has been ready for some time without anyone driving it.
void ensure_progress();

}  // namespace sextant::simt
