// Wires routes to the text pool and generations.
#include "server/openai/api.h"

#include <boost/asio/post.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/base/check.h"
#include "server/http/error_body.h"
#include "server/metrics.h"
#include "server/openai/generation.h"
#include "server/openai/models.h"
#include "server/openai/prepare.h"
#include "server/openai/text_pool.h"
#include "server/openai/tokenize.h"

namespace sextant::openai {
namespace {

namespace asio = boost::asio;

int64_t system_unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Status text_queue_full() {
  return Status(StatusCode::kUnavailable, "The server has too many requests waiting to be read. Try again later.", {},
                "queue_full");
}

// Nothing of what a body causes may end a thread: memory for an absurd one, at worst.
template <typename T, typename Work>
Result<T> guarded(Work&& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    return internal_error(std::string("The request could not be read: ") + error.what());
  }
}

// With the names alone that `identity` may use.
ServedModel visible_to(const Identity* identity, ServedModel model) {
  if (identity != nullptr)
    std::erase_if(model.names, [&](const std::string& name) { return !identity->may_use(name); });
  return model;
}

void answer(http::Exchange& exchange, Result<std::string> body) {
  if (!body.ok()) {
    exchange.respond(http::error_response(body.status()));
    return;
  }
  http::HttpResponse response;
  response.body = *std::move(body);
  exchange.respond(std::move(response));
}

}  // namespace

struct Api::Impl {
  Impl(ApiOptions given, Engine& engine, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
       ServerMetrics* metrics)
      : options(std::move(given)),
        model{&tokenizer,
              chat_template,
              {engine.info().vocab_size, engine.info().max_model_len},
              options.served_model_names},
        services{engine,
                 tokenizer,
                 metrics,
                 seeds,
                 options.system_fingerprint,
                 options.pause_above_buffered_bytes,
                 options.sse_heartbeat_s,
                 nullptr,
                 options.budget,
                 options.note_prompts},
        sinks(engine, options.num_event_sinks),
        text_pool(options.num_text_threads, options.max_queued_texts, options.max_queued_text_bytes) {
    CHECK(!options.served_model_names.empty());
    if (options.response_cache_bytes > 0) {
      cache.emplace(static_cast<size_t>(options.response_cache_bytes), options.response_cache_ttl_s * 1'000'000'000,
                    [&engine] { return engine.clock().now_ns(); });
      services.cache = &*cache;
      if (metrics != nullptr) {
        metrics->set_response_cache_source([this] {
          const ResponseCache::Stats stats = cache->stats();
          return ResponseCacheReading{stats.hits, stats.misses, stats.evictions, stats.num_bytes};
        });
      }
    }
    if (!options.unix_now_s) options.unix_now_s = system_unix_s;
    listing = {options.model_root, options.unix_now_s()};
  }

  using Prepare = Result<GenerationSpec> (*)(std::string_view, const ServedModel&, const RequestIdentity&);
  void generate(std::shared_ptr<http::Exchange> exchange, Prepare prepare);
  using Translate = Result<std::string> (*)(std::string_view, const ServedModel&, int64_t);
  void translate(std::shared_ptr<http::Exchange> exchange, Translate translate);

  ApiOptions options;
  SeedSource seeds;
  ServedModel model;
  ModelListing listing;
  ~Impl() {
    if (cache && services.metrics != nullptr) services.metrics->set_response_cache_source({});
  }

  std::optional<ResponseCache> cache;
  GenerationServices services;
  SinkRegistry sinks;
  TextPool text_pool;  // last: its jobs use the others
};

// The exchange is released on its own executor, never on a pool thread: the last reference travels back with
// the outcome.
void Api::Impl::generate(std::shared_ptr<http::Exchange> exchange, Prepare prepare) {
  const asio::any_io_executor executor = exchange->executor();
  const http::HttpRequest* request = &exchange->request();  // lives as long as the exchange
  auto generation = Generation::create(exchange, services, sinks.of(executor));
  const RequestIdentity identity{request->request_id, options.unix_now_s()};
  auto job = [this, prepare, request, executor, identity, exchange, generation]() mutable {
    Result<GenerationSpec> spec = Status(StatusCode::kCancelled, "The client went away.");
    if (!generation->is_abandoned()) {
      spec = guarded<GenerationSpec>([&] { return prepare(request->body, model, identity); });
    }
    asio::post(executor, [exchange = std::move(exchange), generation = std::move(generation),
                          spec = std::move(spec)]() mutable { generation->run(std::move(spec)); });
  };
  if (!text_pool.try_submit(std::move(job), request->body.size())) generation->run(text_queue_full());
}

void Api::Impl::translate(std::shared_ptr<http::Exchange> exchange, Translate function) {
  const asio::any_io_executor executor = exchange->executor();
  const size_t num_bytes = exchange->request().body.size();
  auto job = [this, function, executor, exchange, request = &exchange->request()]() mutable {
    Result<std::string> body =
        guarded<std::string>([&] { return function(request->body, model, options.unix_now_s()); });
    asio::post(executor, [exchange = std::move(exchange), body = std::move(body)]() mutable {
      answer(*exchange, std::move(body));
    });
  };
  if (!text_pool.try_submit(std::move(job), num_bytes)) answer(*exchange, text_queue_full());
}

Api::Api(ApiOptions options, Engine& engine, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
         ServerMetrics* metrics)
    : impl_(std::make_unique<Impl>(std::move(options), engine, tokenizer, chat_template, metrics)) {}

Api::~Api() = default;

std::vector<std::string> Api::cached_texts(const std::string& tenant) const {
  std::vector<std::string> texts;
  if (!impl_->cache) return texts;
  for (const auto& answer : impl_->cache->answers_of(tenant)) {
    for (const ChoiceUpdate& choice : answer->choices) texts.push_back(choice.text);
  }
  return texts;
}

size_t Api::forget_cached(const std::string& tenant) { return impl_->cache ? impl_->cache->forget(tenant) : 0; }

void Api::register_routes(http::Router& router) {
  Impl* impl = impl_.get();
  const auto generate = [&](std::string_view path, Impl::Prepare prepare) {
    router.add("POST", path, [impl, prepare](std::shared_ptr<http::Exchange> exchange) {
      impl->generate(std::move(exchange), prepare);
    });
  };
  generate("/v1/completions", &prepare_completion);
  generate("/v1/chat/completions", &prepare_chat);
  generate("/v1/stream", &prepare_lines);
  generate("/generate", &prepare_generate);
  const auto translate = [&](std::string_view path, Impl::Translate function) {
    router.add("POST", path, [impl, function](std::shared_ptr<http::Exchange> exchange) {
      impl->translate(std::move(exchange), function);
    });
  };
  translate("/tokenize", &tokenize);
  translate("/detokenize",
            [](std::string_view body, const ServedModel& model, int64_t) { return detokenize(body, model); });
  router.add("GET", "/v1/models", [impl](const std::shared_ptr<http::Exchange>& exchange) {
    answer(*exchange, render_models(visible_to(exchange->identity().get(), impl->model), impl->listing));
  });
  router.add("GET", "/v1/models/*", [impl](const std::shared_ptr<http::Exchange>& exchange) {
    std::string_view name = exchange->request().path;
    name.remove_prefix(std::string_view("/v1/models/").size());
    answer(*exchange, render_model(name, visible_to(exchange->identity().get(), impl->model), impl->listing));
  });
}

}  // namespace sextant::openai
