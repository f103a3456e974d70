// As evp.h beside it: the one keyed digest that engine/group asks for. Source: RFC 2104 over SHA-256, blocks of 64 bytes.
#pragma once

#include <array>
#include <cstring>
#include <vector>

#include <openssl/evp.h>

inline unsigned char* HMAC(const EVP_MD*, const void* key, int key_size, const unsigned char* data, size_t count,
                           unsigned char* digest, unsigned* size) {
  std::array<unsigned char, 64> padded = {};
  if (key_size > 64) {
    EVP_Digest(key, static_cast<size_t>(key_size), padded.data(), nullptr, nullptr, nullptr);
  } else if (key_size > 0) {
    std::memcpy(padded.data(), key, static_cast<size_t>(key_size));
  }
  const auto pass = [&](unsigned char pad, const unsigned char* bytes, size_t num_bytes) {
    std::vector<unsigned char> text;
    for (const unsigned char byte : padded) text.push_back(byte ^ pad);
    text.insert(text.end(), bytes, bytes + num_bytes);
    EVP_Digest(text.data(), text.size(), digest, nullptr, nullptr, nullptr);
  };
  pass(0x36, data, count);
  std::array<unsigned char, 32> inner = {};
  std::memcpy(inner.data(), digest, inner.size());
  pass(0x5c, inner.data(), inner.size());
  if (size != nullptr) *size = 32;
  return digest;
}
