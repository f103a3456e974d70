#include "server/openai/models.h"

#include <gtest/gtest.h>

#include "tests/support/api_fixture.h"

namespace sextant::openai {
namespace {

using testing_support::ApiFixture;

class ModelsTest : public ApiFixture {};

TEST_F(ModelsTest, ListsEveryServedName) {
  const Json body = answer_of(send("GET", "/v1/models"), 200);
  EXPECT_EQ(body["object"], "list");
  ASSERT_EQ(body["data"].size(), 2u);
  EXPECT_EQ(body["data"][0].dump(),
            R"({"id":"tiny","object":"model","created":1700000000,"owned_by":"sextant","root":"models/tiny",)"
            R"("parent":null,"max_model_len":256})");
  EXPECT_EQ(body["data"][1]["id"], "tiny-alias");
}

TEST_F(ModelsTest, ShowsOne) {
  EXPECT_EQ(answer_of(send("GET", "/v1/models/tiny-alias"), 200)["id"], "tiny-alias");
  const Json error = answer_of(send("GET", "/v1/models/a/b"), 404)["error"];
  EXPECT_EQ(error["code"], "model_not_found");
  EXPECT_EQ(error["param"], "model");
  EXPECT_NE(error["message"].get<std::string>().find("\"a/b\""), std::string::npos);
}

}  // namespace
}  // namespace sextant::openai
