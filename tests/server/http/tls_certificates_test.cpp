// Files of certificates: what is wrong with them, all at once; changes that are taken and changes that are not.
#include "server/http/tls_certificates.h"

#include <gmock/gmock.h>

#include "tests/server/http/http_server_fixture.h"
#include "tests/server/http/tls_client.h"

namespace sextant::http {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class TlsCertificatesTest : public testing::Test {
 protected:
  TlsCertificatesTest() {
    std::string pattern = testing::TempDir() + "tls-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    options.certfile = folder_ / "certificate.pem";
    options.keyfile = folder_ / "key.pem";
  }
  ~TlsCertificatesTest() override { std::filesystem::remove_all(folder_); }

  void write(const KeyPair& pair) const {
    write_file(options.certfile, pair.certificate);
    write_file(options.keyfile, pair.key);
  }
  std::string errors() const {
    std::string text;
    for (const Status& error : TlsCertificates::check(options)) text += error.param() + ": " + error.message() + "\n";
    return text;
  }

  TlsOptions options;
  std::filesystem::path folder_;
};

TEST_F(TlsCertificatesTest, NothingIsWrongWithNothingOrWithAPair) {
  EXPECT_THAT(TlsCertificates::check({}), IsEmpty());
  const auto none = TlsCertificates::open({});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, nullptr);
  const KeyPair pair = make_key_pair();
  write(pair);
  EXPECT_EQ(errors(), "");
  // Both in one file, as some tools leave them.
  write_file(options.certfile, pair.key + pair.certificate);
  options.keyfile.clear();
  EXPECT_EQ(errors(), "");
  const auto opened = TlsCertificates::open(options);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_NEAR((*opened)->reading().expiry_s, 90 * 24 * 3600 - 3600, 120);
}

TEST_F(TlsCertificatesTest, AllThatIsWrongIsSaidAtOnce) {
  options.ca_certs = folder_ / "nobody.pem";
  options.cert_reqs = 7;
  const std::string all = errors();
  EXPECT_THAT(all, HasSubstr("ssl_cert_reqs must be 0"));
  EXPECT_THAT(all, HasSubstr("ssl_certfile " + options.certfile + " cannot be read: No such file"));
  EXPECT_THAT(all, HasSubstr("ssl_keyfile " + options.keyfile + " cannot be read: No such file"));
  EXPECT_THAT(all, HasSubstr("ssl_ca_certs " + options.ca_certs + " cannot be read: No such file"));
  EXPECT_FALSE(TlsCertificates::open(options).ok());
}

TEST_F(TlsCertificatesTest, SettingsWithoutACertificateOrAuthorities) {
  TlsOptions alone;
  alone.keyfile_password = "secret";
  ASSERT_EQ(TlsCertificates::check(alone).size(), 1U);
  EXPECT_EQ(TlsCertificates::check(alone)[0].param(), "ssl_certfile");
  EXPECT_THAT(TlsCertificates::check(alone)[0].message(), testing::Not(HasSubstr("secret")));
  write(make_key_pair());
  options.cert_reqs = 2;
  EXPECT_THAT(errors(), HasSubstr("ssl_ca_certs must be given with ssl_cert_reqs"));
}

TEST_F(TlsCertificatesTest, FilesThatAreSomethingElse) {
  const KeyPair pair = make_key_pair();
  write(pair);
  write_file(options.certfile, "no certificate");
  EXPECT_THAT(errors(), HasSubstr("holds no certificate in PEM form"));
  write_file(options.certfile, pair.certificate + pair.certificate.substr(0, 200));  // half a chain
  EXPECT_THAT(errors(), HasSubstr("or a broken one"));
  write_file(options.certfile, "");
  EXPECT_THAT(errors(), HasSubstr("holds no certificate"));
  std::string flipped = pair.certificate;
  flipped[flipped.size() / 2] = flipped[flipped.size() / 2] == 'A' ? 'B' : 'A';
  write_file(options.certfile, flipped);
  EXPECT_NE(errors(), "");
  write(pair);
  write_file(options.keyfile, pair.certificate);
  EXPECT_THAT(errors(), HasSubstr("ssl_keyfile " + options.keyfile + " holds no private key in PEM form"));
  write_file(options.keyfile, make_key_pair().key);
  EXPECT_THAT(errors(), HasSubstr("is not the one of the certificate"));
  options.keyfile = folder_;
  EXPECT_THAT(errors(), HasSubstr("Is a directory"));
  options.keyfile = folder_ / "pipe";
  ASSERT_EQ(mkfifo(options.keyfile.c_str(), 0600), 0);
  EXPECT_THAT(errors(), HasSubstr("ssl_keyfile"));  // and does not wait for somebody to write into it
  options.keyfile.clear();
  EXPECT_THAT(errors(), HasSubstr("it may stand in a file of its own: ssl_keyfile"));
  write_file(options.certfile, std::string(size_t{5} << 20, 'x'));
  EXPECT_THAT(errors(), HasSubstr("File too large"));
}

TEST_F(TlsCertificatesTest, AnEncryptedKeyNeedsItsPassword) {
  write(make_key_pair({.name = "a", .password = "open sesame"}));
  EXPECT_THAT(errors(), HasSubstr("ssl_keyfile_password must be given"));
  options.keyfile_password = "guess";
  EXPECT_THAT(errors(), HasSubstr("ssl_keyfile_password does not open"));
  EXPECT_THAT(errors(), testing::Not(HasSubstr("guess")));
  options.keyfile_password = "open sesame";
  EXPECT_EQ(errors(), "");
}

TEST_F(TlsCertificatesTest, AnExpiredOneIsNoErrorButShows) {
  write(make_key_pair({.name = "old", .valid_from_s = -7200, .valid_for_s = 3600}));
  EXPECT_EQ(errors(), "");
  const auto opened = TlsCertificates::open(options);
  ASSERT_TRUE(opened.ok());
  EXPECT_NEAR((*opened)->reading().expiry_s, -3600, 120);
}

TEST_F(TlsCertificatesTest, ChangesAreTakenWhenTheyAreValid) {
  write(make_key_pair());
  const auto opened = TlsCertificates::open(options, std::chrono::milliseconds(2));
  ASSERT_TRUE(opened.ok());
  TlsCertificates& tls = **opened;
  const auto first = tls.context();
  // One half of a new pair: refused, and the old one stays.
  const KeyPair next = make_key_pair({.name = "next", .valid_for_s = 3600 * 24 * 400});
  write_file(options.certfile, next.certificate);
  EXPECT_TRUE(wait_until([&] { return tls.reading().num_refused == 1; }));
  EXPECT_EQ(tls.context(), first);
  EXPECT_LT(tls.reading().expiry_s, 3600 * 24 * 91);
  write_file(options.keyfile, next.key);
  EXPECT_TRUE(wait_until([&] { return tls.reading().num_reloads == 1; }));
  EXPECT_NE(tls.context(), first);
  EXPECT_GT(tls.reading().expiry_s, 3600 * 24 * 390);
  // A file that is gone is no change to serve, and its return is one.
  const auto second = tls.context();
  std::filesystem::rename(options.keyfile, options.keyfile + ".away");
  EXPECT_TRUE(wait_until([&] { return tls.reading().num_refused == 2; }));
  EXPECT_EQ(tls.context(), second);
  std::filesystem::rename(options.keyfile + ".away", options.keyfile);
  EXPECT_TRUE(wait_until([&] { return tls.reading().num_reloads == 2; }));
  // The same bytes again are no change.
  write(next);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(tls.reading().num_reloads, 2U);
  EXPECT_EQ(tls.reading().num_refused, 2U);
}

TEST_F(TlsCertificatesTest, AFileThatGrowsIsTriedAgainUntilItIsWhole) {
  const KeyPair old = make_key_pair(), next = make_key_pair();
  write_file(options.certfile, old.certificate + old.key);
  options.keyfile.clear();
  const auto opened = TlsCertificates::open(options, std::chrono::milliseconds(1));
  ASSERT_TRUE(opened.ok());
  const std::string whole = next.certificate + next.key;
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 7) {
    std::ofstream(options.certfile, std::ios::binary | std::ios::trunc) << whole.substr(0, size);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_EQ((*opened)->reading().num_reloads, 0U);
  }
  std::ofstream(options.certfile, std::ios::binary | std::ios::trunc) << whole;
  EXPECT_TRUE(wait_until([&] { return (*opened)->reading().num_reloads == 1; }));
}

}  // namespace
}  // namespace sextant::http
