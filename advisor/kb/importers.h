// Files and facts to documents of the knowledge base, and back. What a source does not say is null, never a default.
// Every document is checked before anything is stored: closed sets of fields, ranges, dates. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "advisor/kb/knowledge_base.h"

namespace sextant::advisor {

// A file by its content: sextant.benchmark/1 records (JSON lines), an export of ours (JSON lines of {"kind","id","body"}), or
// CSV with the header of measured_serving, gpu_profiles, model_facts or cloud_prices. `source` names it in messages.
Result<std::vector<KbDocument>> documents_from_file(std::string_view text, const std::string& source);

// All that the program carries.
Result<std::vector<KbDocument>> shipped_documents();

KbDocument document_of(const ServingPoint& point, const std::string& attribution);
KbDocument document_of(const ModelFacts& facts);
KbDocument document_of(const GpuProfile& profile, const std::vector<std::string>& aliases);

// Of one document as users send it; the message names the field. Fills the id where it follows from the body.
Result<KbDocument> checked_document(KbKind kind, const nlohmann::json& body);

// The closed form of a kind's documents, as JSON Schema (2020-12).
nlohmann::ordered_json kb_document_schema(KbKind kind);

// "2026-01-19": a day that exists.
bool is_date(std::string_view text);
// Of a date, but for how many days its month has.
inline constexpr const char* kDatePattern = "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$";

}  // namespace sextant::advisor
