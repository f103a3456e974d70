// The fields of /v1/chat/completions that completions do not have, and messages.
#include "server/openai/chat_request.h"

#include <gtest/gtest.h>
#include <string>

#include "server/openai/chat_messages.h"

namespace sextant::openai {
namespace {

constexpr ModelLimits kLimits{.vocab_size = 1000, .max_model_len = 2048};

Result<ChatRequest> parse(const std::string& fields) {
  Json body = Json::parse("{" + fields + "}");
  if (!body.contains("messages")) body["messages"] = Json::parse(R"([{"role":"user","content":"hi"}])");
  return parse_chat_request(body, kLimits);
}

ChatRequest parsed(const std::string& fields) {
  Result<ChatRequest> request = parse(fields);
  EXPECT_TRUE(request.ok()) << fields << ": " << request.status().message();
  return request.ok() ? *std::move(request) : ChatRequest();
}

std::string refused(const std::string& fields) {
  const Result<ChatRequest> request = parse(fields);
  EXPECT_FALSE(request.ok()) << fields;
  if (request.ok()) return {};
  EXPECT_EQ(request.status().code(), StatusCode::kInvalidArgument) << fields;
  EXPECT_NE(request.status().message().find(request.status().param()), std::string::npos) << request.status().message();
  return request.status().param();
}

TEST(ChatRequest, Defaults) {
  const ChatRequest request = parsed("");
  EXPECT_TRUE(request.prompt.add_generation_prompt);
  EXPECT_FALSE(request.prompt.continue_final_message);
  EXPECT_TRUE(request.prompt.tools.is_null());
  EXPECT_TRUE(request.prompt.documents.is_null());
  EXPECT_FALSE(request.shared.max_tokens);
  EXPECT_FALSE(request.shared.sampling.logprobs);
}

TEST(ChatRequest, TextPartsAreJoined) {
  const ChatRequest request = parsed(
      R"("messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"n"},
                     {"role":"assistant","content":""}])");
  EXPECT_EQ(request.prompt.messages.dump(),
            R"([{"role":"user","content":"a\nb","name":"n"},{"role":"assistant","content":""}])");
}

TEST(ChatRequest, MessagesAtFaultAreNamed) {
  EXPECT_EQ(refused(R"("messages":null)"), "messages");
  EXPECT_EQ(refused(R"("messages":[])"), "messages");
  EXPECT_EQ(refused(R"("messages":"hi")"), "messages");
  EXPECT_EQ(refused(R"("messages":["hi"])"), "messages[0]");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":"x"},{"content":"x"}])"), "messages[1].role");
  EXPECT_EQ(refused(R"("messages":[{"role":1,"content":"x"}])"), "messages[0].role");
  EXPECT_EQ(refused(R"("messages":[{"role":"user"}])"), "messages[0].content");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":null}])"), "messages[0].content");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":5}])"), "messages[0].content");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":"x","contnt":1}])"), "messages[0].contnt");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":["x"]}])"), "messages[0].content[0]");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":[{"text":"x"}]}])"), "messages[0].content[0].type");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":[{"type":"text"}]}])"), "messages[0].content[0].text");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":[{"type":"text","text":"a"},
                       {"type":"image_url","image_url":{"url":"u"}}]}])"),
            "messages[0].content[1].type");
  EXPECT_EQ(refused(R"("messages":[{"role":"user","content":"x","name":4}])"), "messages[0].name");
}

TEST(ChatRequest, ToolHistoryReachesTheTemplate) {
  const ChatRequest request = parsed(
      R"("messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function",
          "function":{"name":"f","arguments":"{\"x\": 1}"}}]},{"role":"tool","tool_call_id":"c","content":"2"}])");
  const Json& call = request.prompt.messages[0];
  EXPECT_TRUE(call["content"].is_null());
  EXPECT_EQ(call["tool_calls"][0]["function"]["arguments"].dump(), R"({"x":1})");
  EXPECT_EQ(request.prompt.messages[1]["tool_call_id"], "c");
  const char* broken = R"("messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":"{"}}]}])";
  EXPECT_EQ(refused(broken), "messages[0].tool_calls[0].function.arguments");
  EXPECT_EQ(refused(R"("messages":[{"role":"assistant","tool_calls":[{}]}])"), "messages[0].tool_calls[0].function");
  EXPECT_EQ(refused(R"("messages":[{"role":"assistant","tool_calls":5}])"), "messages[0].tool_calls");
}

TEST(ChatRequest, ToolsNeedToolChoiceNone) {
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_EQ(refused(tools), "tools");
  EXPECT_EQ(refused(tools + R"(,"tool_choice":"auto")"), "tool_choice");
  EXPECT_EQ(refused(R"("tool_choice":"required")"), "tool_choice");
  EXPECT_EQ(refused(R"("tool_choice":{"type":"function","function":{"name":"f"}})"), "tool_choice");
  EXPECT_EQ(refused(R"("tool_choice":5)"), "tool_choice");
  EXPECT_EQ(refused(R"("tools":{})"), "tools");
  EXPECT_EQ(refused(R"("tools":[1],"tool_choice":"none")"), "tools[0]");
  EXPECT_EQ(parsed(tools + R"(,"tool_choice":"none")").prompt.tools.size(), 1u);
  EXPECT_TRUE(parsed(R"("tools":[],"tool_choice":"none","parallel_tool_calls":false)").prompt.tools.is_null());
}

TEST(ChatRequest, MaxTokensHasTwoNames) {
  EXPECT_EQ(parsed(R"("max_tokens":7)").shared.max_tokens, 7);
  EXPECT_EQ(parsed(R"("max_completion_tokens":8)").shared.max_tokens, 8);
  EXPECT_EQ(parsed(R"("max_tokens":7,"max_completion_tokens":8)").shared.max_tokens, 8);
  EXPECT_EQ(refused(R"("max_completion_tokens":0)"), "max_completion_tokens");
  EXPECT_EQ(refused(R"("max_tokens":0)"), "max_tokens");
  EXPECT_EQ(refused(R"("max_completion_tokens":"8")"), "max_completion_tokens");
}

TEST(ChatRequest, Logprobs) {
  EXPECT_FALSE(parsed(R"("logprobs":false,"top_logprobs":0)").shared.sampling.logprobs);
  EXPECT_EQ(parsed(R"("logprobs":true)").shared.sampling.logprobs, 0);
  EXPECT_EQ(parsed(R"("logprobs":true,"top_logprobs":20)").shared.sampling.logprobs, 20);
  EXPECT_EQ(refused(R"("logprobs":1)"), "logprobs");
  EXPECT_EQ(refused(R"("top_logprobs":2)"), "top_logprobs");
  EXPECT_EQ(refused(R"("logprobs":true,"top_logprobs":21)"), "top_logprobs");
  EXPECT_EQ(refused(R"("logprobs":true,"top_logprobs":-1)"), "top_logprobs");
}

TEST(ChatRequest, TemplateVariables) {
  const ChatRequest request = parsed(
      R"("chat_template_kwargs":{"enable_thinking":false,"x":[1]},"reasoning_effort":"low","documents":[{"text":"t"}])");
  EXPECT_EQ(request.prompt.kwargs.dump(), R"({"enable_thinking":false,"x":[1],"reasoning_effort":"low"})");
  EXPECT_EQ(request.prompt.documents.dump(), R"([{"text":"t"}])");
  EXPECT_EQ(parsed(R"("reasoning_effort":"none")").prompt.kwargs["enable_thinking"], false);
  EXPECT_EQ(refused(R"("chat_template_kwargs":[])"), "chat_template_kwargs");
  EXPECT_EQ(refused(R"("chat_template_kwargs":{"messages":[]})"), "chat_template_kwargs.messages");
  EXPECT_EQ(refused(R"("reasoning_effort":"huge")"), "reasoning_effort");
  EXPECT_EQ(refused(R"("documents":{})"), "documents");
  EXPECT_EQ(refused(R"("documents":["x"])"), "documents[0]");
  EXPECT_EQ(refused(R"("chat_template":"{{ x }}")"), "chat_template");
}

TEST(ChatRequest, ContinuingTheLastMessage) {
  const ChatRequest request = parsed(R"("continue_final_message":true)");
  EXPECT_TRUE(request.prompt.continue_final_message);
  EXPECT_FALSE(request.prompt.add_generation_prompt);
  EXPECT_EQ(refused(R"("continue_final_message":true,"add_generation_prompt":true)"), "continue_final_message");
  EXPECT_EQ(refused(R"("continue_final_message":true,"messages":[{"role":"user","content":" \n"}])"),
            "continue_final_message");
  EXPECT_EQ(refused(R"("continue_final_message":1)"), "continue_final_message");
}

TEST(ChatRequest, WhatWouldChangeTheAnswerIsRefused) {
  for (const char* field :
       {R"("audio":{"voice":"x"})", R"("modalities":["text","audio"])", R"("functions":[{"name":"f"}])",
        R"("function_call":"auto")", R"("web_search_options":{})", R"("verbosity":"low")",
        R"("response_format":{"type":"json_schema","json_schema":{}})", R"("best_of":2)"}) {
    EXPECT_FALSE(parse(field).ok()) << field;
  }
  for (const char* field : {R"("modalities":["text"])", R"("functions":[])", R"("function_call":"none")",
                            R"("verbosity":"medium")", R"("prediction":{"type":"content","content":"x"})",
                            R"("prompt_cache_retention":"24h")", R"("include_reasoning":false)"}) {
    EXPECT_TRUE(parse(field).ok()) << field << ": " << parse(field).status().message();
  }
}

TEST(ChatRequest, PromptIsNotAField) {
  const auto request = parse(R"("prompt":"x")");
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(request.status().error_code(), "unknown_field");
}

}  // namespace
}  // namespace sextant::openai
