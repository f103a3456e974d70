// One machine from a plan: what is quoted reads back as what it was, by the readers' own rules written down here a second time;
// no text of a plan or an option begins a line, a word, a variable or an expression of its own.
#include "deploy/single_node/single_node.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "deploy/guide/guide.h"
#include "deploy/yaml.h"
#include "tests/support/random_seed.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

// Texts as Target lets them in (UTF-8, of control characters only newline and tab), made of what formats give a meaning to.
std::string hostile_text(std::mt19937_64& random, size_t most) {
  static const std::vector<std::string> pieces = {
      "\"",    "'",     "\\",   "\\\\",  "\n",      "\t",     " ",           "%",
      "%n",    "%%",    "$",    "$$",    "${HOME}", "$HOME",  "$(id)",       "`id`",
      "${{",   "}}",    "{",    "}",     ";",       " ; ",    "#",           "\n[Service]\nExecStart=/bin/false\n",
      "\n}\n", "é",     "日本", "🙂",  "\u2028",  "a",      "Z",           "/",
      ":",     "-",     "=",    "|",     "<b>",     "[x](y)", "*",           "_",
      "\\n",   "\\x41", "\\",   "yes",   "null",    "0x1f",   "- ",          "? ",
      ": ",    "&a",    "*a",   "!!str", "---\n",   "~",      "\xef\xbb\xbf"};
  std::string out;
  const size_t count = random() % 12;
  for (size_t i = 0; i < count && out.size() < most; ++i) out += pieces[random() % pieces.size()];
  return out;
}

Target target_of(const std::string& model, const std::string& text) {
  Target target;
  target.options.name = "chat";
  target.options.image = "sextant:0.1.0";
  target.options.kind = "deployment";
  target.options.autoscaler = "hpa";
  target.options.min_replicas = 2;
  target.options.max_replicas = 6;
  target.options.description = text;
  target.plan_id = "0123456789";
  target.title = text;
  target.version = "0.1.0";
  target.model_id = model;
  target.gpu = "L40S";
  target.replicas = 2;
  target.max_num_seqs = 114;
  target.max_model_len = 800;
  target.load_seconds = 111;
  target.limit_rps_per_replica = 33.4387;
  target.peak_rps = 24.6914;
  target.option = ordered_json::parse(
      R"({"at_peak_per_replica": {"requests_per_s": 24.6914, "ttft_ms": {"mean": 93.0963}, "tpot_ms": {"mean": 8.36959}},
          "limit_per_replica": {"requests_per_s": 33.4387},
          "targets": [{"target": "target_ttft_p90_ms", "limit_ms": 300, "predicted_ms": 146.208, "low90_ms": 56.06, "high90_ms": 381.3,
                       "verdict": "pass"}],
          "cost": {"usd_per_hour": 3.722, "usd_per_month": 2717.06}})");
  return target;
}

// systemd.syntax(7) "Quoting" and systemd.service(5) "Command lines": words at white space, double quotes, C escapes; then specifiers,
// then variables. Fails the test at anything that would not stand for itself.
std::vector<std::string> read_command_line(const std::string& line) {
  std::vector<std::string> words;
  size_t i = 0;
  while (i < line.size()) {
    if (line[i] == ' ') {
      ++i;
      continue;
    }
    std::string word;
    bool quoted = false;
    for (; i < line.size() && (quoted || line[i] != ' '); ++i) {
      const char c = line[i];
      if (c == '"') {
        quoted = !quoted;
      } else if (c == '\'' && !quoted) {
        ADD_FAILURE() << "a single quote outside of double quotes: " << line;
      } else if (c == '\\') {
        const char next = i + 1 < line.size() ? line[++i] : '\0';
        if (next == 'x') {
          word += static_cast<char>(std::stoi(line.substr(i + 1, 2), nullptr, 16));
          i += 2;
        } else if (next == '"' || next == '\\') {
          word += next;
        } else {
          ADD_FAILURE() << "an escape that is not one: \\" << next;
        }
      } else if (c == '%' || c == '$') {
        if (i + 1 >= line.size() || line[i + 1] != c) ADD_FAILURE() << "a single " << c << " in " << line;
        ++i;
        word += c;
      } else {
        if (!quoted && std::string(";#`(){}<>|&*?").find(c) != std::string::npos)
          ADD_FAILURE() << c << " outside of quotes: " << line;
        word += c;
      }
    }
    if (quoted) ADD_FAILURE() << "a quote that does not end: " << line;
    words.push_back(word);
  }
  return words;
}

// ngx_conf_read_token of nginx: one word.
std::string read_nginx_word(const std::string& text) {
  if (text.empty() || text[0] != '"') {
    EXPECT_EQ(text.find_first_of(" \t\r\n\"'\\{};#"), std::string::npos) << text;
    EXPECT_FALSE(text.empty());
    return text;
  }
  std::string out;
  size_t i = 1;
  for (; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const char next = text[++i];
    out += next == 'n' ? '\n' : next == 't' ? '\t' : next == 'r' ? '\r' : next;
    if (std::string("ntr\"\\").find(next) == std::string::npos)
      ADD_FAILURE() << "an escape that nginx would keep: \\" << next;
  }
  EXPECT_EQ(i, text.size() - 1) << text;
  return out;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

TEST(SingleNode, WordsReadBackAsWhatTheyWere) {
  std::mt19937_64 random(random_seed());
  for (int round = 0; round < 2000; ++round) {
    const std::string text = hostile_text(random, 300);
    SCOPED_TRACE(ordered_json(text).dump());
    const std::string word = systemd_word(text);
    EXPECT_EQ(word.find('\n'), std::string::npos);
    EXPECT_EQ(read_command_line("/bin/x " + word + " end"), (std::vector<std::string>{"/bin/x", text, "end"}));
    EXPECT_EQ(read_nginx_word(nginx_word(text)), text);
    std::string interpolated;  // compose: "$$" is a dollar, one alone a variable
    const std::string composed = compose_text(text);
    for (size_t i = 0; i < composed.size(); ++i) {
      if (composed[i] == '$') {
        ASSERT_EQ(composed[++i], '$');
      }
      interpolated += composed[i];
    }
    EXPECT_EQ(interpolated, text);
    std::string evaluated = workflow_text(text);  // an expression that is the text "${{"
    const std::string expression = "${{ '${{' }}";
    for (size_t at = evaluated.find("${{"); at != std::string::npos; at = evaluated.find("${{", at + 3)) {
      ASSERT_EQ(evaluated.compare(at, expression.size(), expression), 0);
      evaluated.replace(at, expression.size(), "${{");
    }
    EXPECT_EQ(evaluated, text);
  }
}

TEST(SingleNode, EveryControlCharacterIsEscapedAndEveryOtherByteKept) {
  for (int byte = 1; byte < 256; ++byte) {
    const std::string text = std::string("a") + static_cast<char>(byte) + "b";
    EXPECT_EQ(read_command_line(systemd_word(text)), std::vector<std::string>{text}) << byte;
    EXPECT_EQ(read_nginx_word(nginx_word(text)), text) << byte;
  }
  EXPECT_EQ(systemd_word(""), "\"\"");
  EXPECT_EQ(nginx_word(""), "\"\"");
}

TEST(SingleNode, AUnitOfHostileTextsHasOnlyItsOwnLinesAndArguments) {
  std::mt19937_64 random(random_seed());
  const std::string plain = unit_text(systemd_unit_of(target_of("owner/name", "title")), "comment");
  for (int round = 0; round < 300; ++round) {
    const std::string model = "m" + hostile_text(random, 300);
    const Target target = target_of(model, hostile_text(random, 300));
    SCOPED_TRACE(ordered_json(model).dump());
    Bundle bundle;
    add_single_node(target, bundle);
    const BundleFile* unit = bundle.find("single-node/systemd/sextant.service");
    ASSERT_NE(unit, nullptr);
    const std::vector<std::string> lines = lines_of(unit->content());
    const std::vector<std::string> expected = lines_of(plain);
    ASSERT_EQ(lines.size(), expected.size());
    for (size_t i = 1; i < lines.size(); ++i) {
      const size_t equals = expected[i].find('=');
      EXPECT_EQ(lines[i].substr(0, equals), expected[i].substr(0, equals)) << i;
      EXPECT_FALSE(lines[i].ends_with("\\")) << lines[i];
      if (lines[i].starts_with("ExecStart=")) {
        std::vector<std::string> words = read_command_line(lines[i].substr(10));
        ASSERT_FALSE(words.empty());
        EXPECT_EQ(words[0], "/usr/local/bin/sextant");
        words.erase(words.begin());
        EXPECT_EQ(words, node_arguments(target, "127.0.0.1"));
        EXPECT_EQ(words[1], model);
      }
    }
    EXPECT_TRUE(lines[0].starts_with("# "));

    const BundleFile* compose = bundle.find("single-node/compose/compose.yaml");
    ASSERT_NE(compose, nullptr);
    const auto documents = parse_yaml_stream(compose->content());
    ASSERT_TRUE(documents.ok()) << documents.status().message();
    ASSERT_EQ(documents.value().size(), 1u);
    EXPECT_EQ(documents.value()[0], compose_of(target));
    EXPECT_EQ(documents.value()[0]["services"]["server"]["command"][1], compose_text(model));

    for (const char* name : {"single-node/systemd/nginx.conf", "single-node/compose/nginx.conf"}) {
      const BundleFile* conf = bundle.find(name);
      ASSERT_NE(conf, nullptr);
      std::vector<std::string> of_conf = lines_of(conf->content());
      EXPECT_TRUE(of_conf[0].starts_with("# "));
      // Nothing but the comment depends on texts of the plan.
      EXPECT_EQ(of_conf[1], "worker_processes auto;");
      EXPECT_EQ(conf->content().find(model.size() > 8 ? model : "no such text", of_conf[0].size()), std::string::npos);
    }
  }
}

TEST(SingleNode, OneLineCutsBetweenCharacters) {
  EXPECT_EQ(one_line("a\nb\tc", 100), "a b c");
  const std::string text = "aé日🙂";
  for (size_t most = 0; most <= text.size() + 1; ++most) {
    const std::string cut = one_line(text, most);
    EXPECT_LE(cut.size(), most);
    EXPECT_TRUE(text.starts_with(cut));
    EXPECT_TRUE(is_clean_text(cut)) << most;
  }
  EXPECT_EQ(one_line(text, text.size()), text);
}

TEST(SingleNode, WhatOneMachineCannotBeIsSaid) {
  Target target = target_of("owner/name", "");
  target.num_nodes = 2;
  Bundle several;
  add_single_node(target, several);
  EXPECT_TRUE(several.files().empty());
  ASSERT_EQ(several.notes.size(), 1u);
  EXPECT_NE(several.notes[0].find("needs 2"), std::string::npos);

  target = target_of("owner/name", "");
  target.options.runtime = "vllm";
  Bundle other;
  add_single_node(target, other);
  EXPECT_EQ(other.find("single-node/systemd/sextant.service"), nullptr);
  const ordered_json compose = compose_of(target);
  EXPECT_EQ(compose["services"]["server"]["command"][0], "--model=owner/name");
  EXPECT_FALSE(compose["services"].contains("pull"));
}

TEST(SingleNode, GpusAndTheirDevices) {
  Target target = target_of("owner/name", "");
  target.tensor_parallel = 2;
  target.pipeline_parallel = 2;
  target.gpus_per_node = 4;
  EXPECT_EQ(compose_of(target)["services"]["server"]["deploy"]["resources"]["reservations"]["devices"][0]["count"], 4);
  EXPECT_NE(unit_text(systemd_unit_of(target), "").find("DeviceAllow=char-nvidia-uvm rw\n"), std::string::npos);
  target.options.simulate = true;
  EXPECT_FALSE(compose_of(target)["services"]["server"].contains("deploy"));
  const std::string unit = unit_text(systemd_unit_of(target), "");
  EXPECT_EQ(unit.find("DeviceAllow"), std::string::npos);
  EXPECT_EQ(unit.find("ExecStartPre"), std::string::npos);
  EXPECT_NE(unit.find("PrivateDevices=yes\n"), std::string::npos);
}

TEST(SingleNode, NginxLetsThroughWhatTheServerWasSizedFor) {
  const NginxPlace place{"127.0.0.1:8000", "/dev/null", "/dev/null", "/etc/sextant/tls"};
  Target target = target_of("owner/name", "");
  const auto text = [&] { return nginx_text(nginx_conf_of(target, place), "x"); };
  EXPECT_NE(text().find("rate=34r/s"), std::string::npos);
  target.limit_rps_per_replica = 0.11;  // 6.6 a minute
  EXPECT_NE(text().find("rate=7r/m"), std::string::npos);
  target.limit_rps_per_replica = 0;
  EXPECT_EQ(text().find("limit_req "), std::string::npos);
  const std::string limit = "--max-body-bytes=" + std::to_string(kMaxBodyBytes);
  const std::vector<std::string> arguments = node_arguments(target, "127.0.0.1");
  EXPECT_NE(std::find(arguments.begin(), arguments.end(), limit), arguments.end());
  EXPECT_NE(text().find("client_max_body_size " + std::to_string(kMaxBodyBytes) + ";"), std::string::npos);
  target.options.host = "llm.example.org";
  target.options.tls_secret = "certificate";
  EXPECT_NE(text().find("ssl_certificate /etc/sextant/tls/tls.crt;"), std::string::npos);
  EXPECT_NE(text().find("return 308 https://$host$request_uri;"), std::string::npos);
}

TEST(Guide, HostileTextsAreNoMarkup) {
  std::mt19937_64 random(random_seed());
  const auto shape = [](const std::string& text) {  // of each line: how many cells, which heading
    std::vector<std::string> out;
    for (const std::string& line : lines_of(text)) {
      size_t bars = 0;
      for (size_t i = 0; i < line.size(); ++i) bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\');
      out.push_back((line.starts_with("#") ? line.substr(0, line.find(' ')) : "") + std::to_string(bars));
    }
    return out;
  };
  Alert alert;
  alert.name = "LLMHighErrorRate", alert.severity = "critical", alert.wait = "5m", alert.meaning = "too many | errors";
  const std::vector<Alert> alerts = {alert};
  const std::vector<std::string> expected = shape(operations_guide(target_of("owner/name", "title"), alerts));
  for (int round = 0; round < 300; ++round) {
    const Target target = target_of("m" + hostile_text(random, 300), "t" + hostile_text(random, 300));
    SCOPED_TRACE(ordered_json(target.model_id).dump() + ordered_json(target.title).dump());
    const std::string guide = operations_guide(target, alerts);
    EXPECT_EQ(shape(guide), expected);
    size_t ticks = 0;
    for (size_t i = 0; i < guide.size(); ++i) {
      ticks += guide[i] == '`' && (i == 0 || guide[i - 1] != '\\');
      if (guide[i] == '<') {
        EXPECT_EQ(ticks % 2, 1u) << "a tag outside of a code span";
      }
    }
  }
}

TEST(Guide, NumbersFollowThePlan) {
  Target target = target_of("owner/name", "title");
  const std::string guide = operations_guide(target, {});
  for (const char* text : {"24.7 requests/s", "33.4 requests/s", "300 ms | 146 ms | 56.1 ms to 381 ms | pass", "111 s",
                           "3.72", "2717", "--replicas=3", "between 2 and 6"})
    EXPECT_NE(guide.find(text), std::string::npos) << text;
  target.load_seconds = 1200;  // more than the recovery time allows
  EXPECT_NE(operations_guide(target, {}).find("This misses the goal of 900 s"), std::string::npos);
  target.load_seconds = 111;
  target.option["sites"] = ordered_json::parse(R"([{"region": "a", "peak_rps": 20, "replicas_needed": 1, "spares": 1},
                                                   {"region": "b", "peak_rps": 30, "replicas_needed": 1, "spares": 0}])");
  const std::string sites = operations_guide(target, {});
  EXPECT_NE(sites.find("| a | 50 requests/s | 33.4 requests/s | **no: scale first** |"), std::string::npos);
  EXPECT_NE(sites.find("| b | 50 requests/s | 66.9 requests/s | yes |"), std::string::npos);
  target.option = ordered_json::object();  // a plan that says nothing more
  EXPECT_FALSE(operations_guide(target, {}).empty());
}

TEST(Workflow, GoesBackWhatItDeploysAndLoadsWithThePlansTargets) {
  Target target = target_of("owner/name", "");
  target.goals = {{"target_ttft_p90_ms", "ttft", 0.9, 300}, {"target_e2e_latency_p95_ms", "e2e", 0.95, 10250.5}};
  const ordered_json workflow = workflow_of(target);
  EXPECT_EQ(workflow["jobs"]["load"]["strategy"]["matrix"]["users"], ordered_json({10, 50, 100}));
  EXPECT_NE(workflow.dump().find("ttft:p90<300ms e2e:p95<10250.5ms"), std::string::npos)
      << workflow["jobs"]["load"].dump();
  const std::map<std::string, std::string> waits = {{"deployment", "deployment/$NAME"},
                                                    {"lws", "leaderworkerset/$NAME"},
                                                    {"kserve", "inferenceservice/$NAME"},
                                                    {"llmisvc", "llminferenceservice/$NAME"}};
  for (const auto& [kind, object] : waits) {
    target.options.kind = kind;
    for (const char* job : {"staging", "production", "rollback"})
      EXPECT_NE(workflow_of(target)["jobs"][job].dump().find(object), std::string::npos) << kind << " " << job;
  }
}

}  // namespace
}  // namespace sextant::deploy
