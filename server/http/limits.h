// Limits: what one client may cost the HTTP server, and how long it may take. Every default is here.
// Fixed before the listener starts; read from any thread.
#pragma once

#include <chrono>
#include <cstddef>

namespace sextant::http {

struct Limits {
  size_t max_header_bytes = 32 * 1024;       // request line and fields -> 431
  size_t max_headers = 100;                  // -> 431
  size_t max_body_bytes = 32 * 1024 * 1024;  // -> 413, by Content-Length before anything of the body is read
  size_t max_websocket_message_bytes = 4 * 1024 * 1024;  // -> close code 1009
  size_t max_connections = 4096;                         // -> 503 and close
  size_t max_connections_of_client = 2048;               // the same; 0: any
  // Read ahead of the request being answered; the rest waits in the kernel.
  size_t max_pipelined_bytes = 64 * 1024;

  // From the first byte (of the first request: from the connect) to the end of the header.
  std::chrono::milliseconds header_timeout{15'000};
  // The body's deadline is body_timeout after its start, moved on by what has arrived at
  // min_body_bytes_per_s.
  std::chrono::milliseconds body_timeout{30'000};
  size_t min_body_bytes_per_s = 16 * 1024;
  std::chrono::milliseconds idle_timeout{75'000};   // keep-alive, between requests
  std::chrono::milliseconds write_timeout{30'000};  // without a byte taken by the client
  // Reading on after our last byte, so that it is not lost to a reset.
  std::chrono::milliseconds linger_timeout{2'000};

  // Streams: Exchange::on_drained() marks the fall below low_water_bytes. A handler that goes on writing to a
  // client that does not read is cut off at max_stream_buffer_bytes.
  size_t low_water_bytes = 16 * 1024;
  size_t max_stream_buffer_bytes = 16 * 1024 * 1024;

  int send_buffer_bytes = 0;  // SO_SNDBUF; 0: the kernel's choice
};

}  // namespace sextant::http
