// The pipeline as a GitHub Actions workflow: tests, image, staging, smoke, load of 10, 50 and 100 users, production, rollback.
// Texts of users reach shells through the environment only. Form: docs.github.com, "Workflow syntax for GitHub Actions".
#include <algorithm>
#include <cmath>

#include "deploy/guide/guide.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

constexpr const char* kRunner = "ubuntu-24.04";
constexpr const char* kCheckout = "actions/checkout@v4";

ordered_json run_step(const char* name, const std::string& script) { return {{"name", name}, {"run", script}}; }

// What is waited for until the pods of a release are ready, as arguments of kubectl.
std::string wait_command(const Target& target) {
  const auto seconds =
      std::max<int64_t>(300, static_cast<int64_t>(std::ceil(2 * (target.load_seconds + target.download_seconds))));
  // Pods are replaced one after another at worst.
  const std::string timeout =
      " --timeout=" + std::to_string(seconds * std::max<int64_t>(1, std::min<int64_t>(target.replicas, 10))) + "s";
  if (target.kind() == "lws")
    return "kubectl -n \"$NAMESPACE\" wait --for=condition=Available \"leaderworkerset/$NAME\"" + timeout;
  if (target.kind() == "kserve")
    return "kubectl -n \"$NAMESPACE\" wait --for=condition=Ready \"inferenceservice/$NAME\"" + timeout;
  if (target.kind() == "llmisvc")
    return "kubectl -n \"$NAMESPACE\" wait --for=condition=Ready \"llminferenceservice/$NAME\"" + timeout;
  return "kubectl -n \"$NAMESPACE\" rollout status \"deployment/$NAME\"" + timeout;
}

ordered_json kubeconfig_step() {
  ordered_json step = run_step("Cluster credentials",
                               "umask 077\nprintf '%s' \"$KUBECONFIG_DATA\" > \"$RUNNER_TEMP/kubeconfig\"\n"
                               "echo \"KUBECONFIG=$RUNNER_TEMP/kubeconfig\" >> \"$GITHUB_ENV\"\n");
  step["env"] = {{"KUBECONFIG_DATA", "${{ secrets.KUBECONFIG }}"}};
  return step;
}

ordered_json apply_step(const Target& target, const char* environment, const std::string& image) {
  ordered_json step = run_step(
      "Apply", std::string("overlay=$(mktemp -d)\ncp -r \"$BUNDLE/kubernetes\" \"$overlay\"\ncd \"$overlay\"\n") +
                   "kustomize create --resources kubernetes/overlays/" + environment +
                   "\nkustomize edit set image \"$PLANNED_IMAGE=$IMAGE\"\nkubectl apply -k .\n" + wait_command(target) +
                   "\n");
  step["env"] = {{"IMAGE", image}};
  return step;
}

ordered_json forward_step(const Target& target) {
  // KServe's Services listen on its own port: there the pod's.
  const std::string reached = target.kind() == "lws"      ? "service/$NAME-leader"
                              : target.kind() == "kserve" ? "deployment/$NAME-predictor"
                                                          : "service/$NAME";
  return run_step(
      "Reach the service",
      "kubectl -n \"$NAMESPACE\" port-forward \"" + reached +
          "\" 8000:8000 > \"$RUNNER_TEMP/forward.log\" 2>&1 &\n"
          "curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:8000/health\n");
}

ordered_json smoke_step() {
  ordered_json step =
      run_step("One answer, whole and streamed",
               "body=$(jq -n --arg model \"$MODEL\" '{model: $model, max_tokens: 16, messages: [{role: \"user\", "
               "content: \"Say yes.\"}]}')\n"
               "ask() { curl --silent --show-error --fail-with-body --max-time 120 "
               "http://127.0.0.1:8000/v1/chat/completions \\\n"
               "  -H \"Authorization: Bearer $API_KEY\" -H 'Content-Type: application/json' -d \"$1\"; }\n"
               "ask \"$body\" | jq -e '.usage.completion_tokens > 0'\n"
               "ask \"$(jq '.stream = true' <<< \"$body\")\" | grep -q '^data: \\[DONE\\]'\n");
  step["env"] = {{"API_KEY", "${{ secrets.API_KEY }}"}};
  return step;
}

// Goals of the plan in the form of --slo.
std::string slo_of(const Target& target) {
  std::string out;
  for (const LatencyGoal& goal : target.goals)
    out += (out.empty() ? "" : " ") + goal.what + ":p" + std::to_string(std::lround(goal.quantile * 100)) + "<" +
           (std::floor(goal.limit_ms) == goal.limit_ms ? std::to_string(std::llround(goal.limit_ms))
                                                       : ordered_json(goal.limit_ms).dump()) +
           "ms";
  return out;
}

ordered_json load_step(const Target& target) {
  const std::string slo = slo_of(target);
  ordered_json step =
      run_step("Load",
               "docker run --rm --network host --env OPENAI_API_KEY --volume \"$RUNNER_TEMP:/results\" --user \"$(id "
               "-u)\" \"$BENCH_IMAGE\" \\\n"
               "  bench serve --url http://127.0.0.1:8000 --model \"$MODEL\" --max-concurrency \"$USERS\" \\\n"
               "  --num-prompts \"$((USERS * 10))\" --max-error-rate 0.01" +
                   std::string(slo.empty() ? "" : " --slo \"$SLO\"") + " --save-result --result-dir /results\n");
  step["env"] = {{"OPENAI_API_KEY", "${{ secrets.API_KEY }}"}, {"USERS", "${{ matrix.users }}"}};
  if (!slo.empty()) step["env"]["SLO"] = slo;
  return step;
}

ordered_json job(const char* name, const std::vector<const char*>& needs, ordered_json steps) {
  ordered_json out = {{"name", name}};
  if (needs.size() == 1) out["needs"] = needs[0];
  if (needs.size() > 1) out["needs"] = needs;
  out["runs-on"] = kRunner;
  out["steps"] = std::move(steps);
  return out;
}

ordered_json checkout(const char* ref = nullptr) {
  ordered_json step = {{"uses", kCheckout}};
  if (ref != nullptr) step["with"] = {{"ref", ref}};
  return step;
}

}  // namespace

std::string workflow_text(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 3, "${{") == 0) {
      out += "${{ '${{' }}";
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

ordered_json workflow_of(const Target& target) {
  const char* built = "${{ vars.REGISTRY }}/sextant:${{ github.sha }}";
  const std::string deployed = target.ours() ? built : target.options.image;
  const std::string tag = "production/" + target.name();
  const std::string staging_namespace = target.ns().substr(0, 55) + "-staging";  // as in kubernetes/overlays/staging
  const char* not_a_rollback = "${{ inputs.action != 'rollback' }}";

  ordered_json unit = job("Unit tests", {},
                          {checkout(), run_step("Packages", "deploy/install-deps.sh --test\n"),
                           run_step("Build", "cmake --preset release\ncmake --build --preset release\n"),
                           run_step("Test", "ctest --preset release\n")});
  unit["container"] = "debian:12";
  unit["if"] = not_a_rollback;
  ordered_json integration =
      job("Integration tests", {"unit"},
          {checkout(), run_step("End to end", "tests/run.sh --only deps,python,model,release,e2e\n")});
  integration["container"] = "debian:12";

  ordered_json build =
      job("Image", {"integration"},
          {checkout(),
           {{"uses", "docker/login-action@v3"},
            {"with",
             {{"registry", "${{ vars.REGISTRY }}"},
              {"username", "${{ secrets.REGISTRY_USER }}"},
              {"password", "${{ secrets.REGISTRY_PASSWORD }}"}}}},
           run_step("Build and push", std::string("docker build --file ") +
                                          (target.simulate() ? "deploy/Dockerfile.cpu" : "deploy/Dockerfile.cuda") +
                                          " --build-arg \"REVISION=$GITHUB_SHA\" --tag \"$BENCH_IMAGE\" .\n"
                                          "docker push \"$BENCH_IMAGE\"\n")});

  ordered_json staging =
      job("Staging", {"build"}, {checkout(), kubeconfig_step(), apply_step(target, "staging", deployed)});
  staging["environment"] = "staging";
  staging["env"] = {{"NAMESPACE", staging_namespace}};
  ordered_json smoke =
      job("Smoke test", {"staging"}, {checkout(), kubeconfig_step(), forward_step(target), smoke_step()});
  smoke["environment"] = "staging";
  smoke["env"] = {{"NAMESPACE", staging_namespace}};
  ordered_json load = job("Load test", {"smoke"},
                          {checkout(),
                           kubeconfig_step(),
                           forward_step(target),
                           load_step(target),
                           {{"uses", "actions/upload-artifact@v4"},
                            {"if", "${{ always() }}"},
                            {"with", {{"name", "load-${{ matrix.users }}"}, {"path", "${{ runner.temp }}/*.json"}}}}});
  load["environment"] = "staging";
  load["env"] = {{"NAMESPACE", staging_namespace}};
  load["strategy"] = {{"max-parallel", 1}, {"matrix", {{"users", {10, 50, 100}}}}};

  ordered_json production = job(
      "Production", {"load"},
      {checkout(), kubeconfig_step(), apply_step(target, "production", deployed), forward_step(target), smoke_step(),
       run_step("Remember as the release to go back to",
                "git tag --force \"$RELEASE_TAG\"\ngit push --force origin \"$RELEASE_TAG\"\n")});
  production["environment"] = "production";
  production["permissions"] = {{"contents", "write"}};

  // The release before: its bundle and its image. On a failed production, or by hand.
  ordered_json before =
      run_step("Its image", "echo \"IMAGE=$REGISTRY/sextant:$(git rev-parse HEAD)\" >> \"$GITHUB_ENV\"\n");
  before["env"] = {{"REGISTRY", "${{ vars.REGISTRY }}"}};
  ordered_json rollback = job("Rollback", {"production"},
                              {checkout(("refs/tags/" + tag).c_str()), kubeconfig_step(), before,
                               apply_step(target, "production", target.ours() ? "${{ env.IMAGE }}" : deployed),
                               forward_step(target), smoke_step()});
  rollback["if"] = "${{ always() && (needs.production.result == 'failure' || inputs.action == 'rollback') }}";
  rollback["environment"] = "production";

  return {{"name", "Deploy " + target.name()},
          {"on",
           {{"push", {{"branches", {"main"}}}},
            {"workflow_dispatch",
             {{"inputs",
               {{"action",
                 {{"description", "deploy, or go back to the release before"},
                  {"type", "choice"},
                  {"options", {"deploy", "rollback"}},
                  {"default", "deploy"}}}}}}}}},
          {"concurrency", {{"group", "deploy-" + target.name()}, {"cancel-in-progress", false}}},
          {"permissions", {{"contents", "read"}}},
          {"defaults", {{"run", {{"shell", "bash"}}}}},  // with -e and -o pipefail
          {"env",
           {{"BUNDLE", "deployments/" + target.name()},
            {"NAME", target.name()},
            {"NAMESPACE", target.ns()},
            {"MODEL", workflow_text(target.model_id)},
            {"PLANNED_IMAGE", target.options.image},
            {"BENCH_IMAGE", built},
            {"RELEASE_TAG", tag}}},
          {"jobs",
           {{"unit", unit},
            {"integration", integration},
            {"build", build},
            {"staging", staging},
            {"smoke", smoke},
            {"load", load},
            {"production", production},
            {"rollback", rollback}}}};
}

void add_guide(const Target& target, const std::vector<Alert>& alerts, Bundle& bundle) {
  bundle.add_text("OPERATIONS.md", operations_guide(target, alerts));
  bundle.add(".github/workflows/deploy.yaml", {workflow_of(target)});
}

}  // namespace sextant::deploy
