// The program `sextant`: its verbs, each defined in a file of server/cli/.
#include <memory>
#include <vector>

#include "server/cli/admin.h"
#include "server/cli/advise.h"
#include "server/cli/audit.h"
#include "server/cli/backup.h"
#include "server/cli/bench_compare.h"
#include "server/cli/bench_engine.h"
#include "server/cli/bench_kernels.h"
#include "server/cli/bench_matrix.h"
#include "server/cli/bench_serve.h"
#include "server/cli/chat.h"
#include "server/cli/command_line.h"
#include "server/cli/deploy.h"
#include "server/cli/kb.h"
#include "server/cli/models.h"
#include "server/cli/pull.h"
#include "server/cli/route.h"
#include "server/cli/serve.h"
#include "server/cli/simulate.h"
#include "server/cli/version.h"

int main(int argc, char** argv) {
  using namespace sextant::cli;
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(make_serve_verb());
  verbs.push_back(make_simulate_verb());
  verbs.push_back(make_route_verb());
  verbs.push_back(make_bench_serve_verb());
  verbs.push_back(make_bench_compare_verb());
  verbs.push_back(make_bench_matrix_verb());
  verbs.push_back(make_bench_engine_verb());
  verbs.push_back(make_bench_kernels_verb());
  verbs.push_back(make_pull_verb());
  verbs.push_back(make_chat_verb());
  verbs.push_back(make_models_verb());
  verbs.push_back(make_advise_plan_verb());
  verbs.push_back(make_advise_compare_verb());
  verbs.push_back(make_advisor_verb());
  verbs.push_back(make_advise_predict_verb());
  verbs.push_back(make_advise_fit_verb());
  verbs.push_back(make_advise_accuracy_verb());
  verbs.push_back(make_deploy_render_verb());
  verbs.push_back(make_deploy_validate_verb());
  for (auto& verb : make_kb_verbs()) verbs.push_back(std::move(verb));
  verbs.push_back(make_admin_audit_verb());
  for (auto& verb : make_admin_backup_verbs()) verbs.push_back(std::move(verb));
  for (auto& verb : make_admin_verbs()) verbs.push_back(std::move(verb));
  verbs.push_back(make_version_verb());
  return run_command_line(argc, argv, verbs);
}
