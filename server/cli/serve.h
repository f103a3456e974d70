// `sextant serve`: the flags, and the order in which the server's parts come to life and go.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "server/cli/command_line.h"
#include "server/cli/serve_options.h"
#include "server/http/listener.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_serve_verb();

// Where the server's engine and tokenizer come from: files, or a simulation.
struct EngineSource {
  std::function<Result<std::unique_ptr<Tokenizer>>()> load_tokenizer;
  std::function<Result<std::unique_ptr<Engine>>(Engine::Options options, const Tokenizer& tokenizer)> create_engine;
  std::function<void(const http::SocketEvent&)> on_socket_event;  // may be empty
};
EngineSource engine_from_files(const ServeOptions& options);

// Serves until a signal; gives the process's exit code. `options` are valid.
int serve(const ServeOptions& options, const EngineSource& source);

// serve() on a node above 0 of a group (follow.cpp).
int follow(const ServeOptions& options);

std::string url_of(const std::string& host, uint16_t port, bool tls);

// One descriptor per connection, and a shell's soft limit is often 1,024.
void raise_descriptor_limit();

}  // namespace sextant::cli
