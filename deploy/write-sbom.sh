#!/usr/bin/env bash
# Writes to stdout, as SPDX 2.3 JSON, what an unpacked image holds: every Debian package by name, version, architecture and package
# URL, and the program with its SHA-256. Licences are left to whoever reads the packages' copyright files (NOASSERTION).
#   deploy/write-sbom.sh ROOT NAME
# SOURCE_DATE_EPOCH is the time of its making, where it is set.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 ROOT NAME" >&2; exit 2; }
root=$1 name=$2
program=$root/usr/local/bin/sextant
[ -d "$root/var/lib/dpkg" ] || { echo "write-sbom: $root holds no Debian packages" >&2; exit 1; }
[ -f "$program" ] || { echo "write-sbom: no program at $program" >&2; exit 1; }
sum=$(sha256sum "$program" | cut -d' ' -f1)
created=$(date --utc --date="@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%Y-%m-%dT%H:%M:%SZ)
dpkg-query --admindir "$root/var/lib/dpkg" --show --showformat '${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n' |
  LC_ALL=C sort | awk -F '\t' -v name="$name" -v sum="$sum" -v created="$created" '
function text(value) { gsub(/\\/, "\\\\", value); gsub(/"/, "\\\"", value); return "\"" value "\"" }
function coded(value) { gsub(/%/, "%25", value); gsub(/\+/, "%2B", value); gsub(/:/, "%3A", value); return value }
function id(value) { gsub(/[^A-Za-z0-9.-]/, "-", value); return value }
$1 == "installed" {
  key = "SPDXRef-deb-" id($2) "-" id($4)
  if (key in seen) key = key "-" NR
  seen[key] = 1
  packages = packages sprintf(",\n    {\"SPDXID\": %s, \"name\": %s, \"versionInfo\": %s, \"supplier\": \"Organization: Debian\", \"downloadLocation\": \"NOASSERTION\", \"filesAnalyzed\": false, \"licenseConcluded\": \"NOASSERTION\", \"licenseDeclared\": \"NOASSERTION\", \"copyrightText\": \"NOASSERTION\", \"externalRefs\": [{\"referenceCategory\": \"PACKAGE-MANAGER\", \"referenceType\": \"purl\", \"referenceLocator\": %s}]}",
    text(key), text($2), text($3), text("pkg:deb/debian/" coded($2) "@" coded($3) "?arch=" $4 "&distro=debian-12"))
  relations = relations sprintf(",\n    {\"spdxElementId\": \"SPDXRef-image\", \"relationshipType\": \"CONTAINS\", \"relatedSpdxElement\": %s}", text(key))
}
END {
  print "{"
  print "  \"spdxVersion\": \"SPDX-2.3\", \"dataLicense\": \"CC0-1.0\", \"SPDXID\": \"SPDXRef-DOCUMENT\","
  print "  \"name\": " text(name) ","
  print "  \"documentNamespace\": " text("https://spdx.org/spdxdocs/sextant-" sum) ","
  print "  \"creationInfo\": {\"created\": " text(created) ", \"creators\": [\"Tool: sextant-write-sbom\"]},"
  print "  \"packages\": ["
  print "    {\"SPDXID\": \"SPDXRef-image\", \"name\": " text(name) ", \"downloadLocation\": \"NOASSERTION\", \"filesAnalyzed\": false, \"primaryPackagePurpose\": \"CONTAINER\", \"licenseConcluded\": \"NOASSERTION\", \"licenseDeclared\": \"NOASSERTION\", \"copyrightText\": \"NOASSERTION\"},"
  printf "    {\"SPDXID\": \"SPDXRef-program\", \"name\": \"sextant\", \"downloadLocation\": \"NOASSERTION\", \"filesAnalyzed\": false, \"primaryPackagePurpose\": \"APPLICATION\", \"licenseConcluded\": \"Apache-2.0\", \"licenseDeclared\": \"Apache-2.0\", \"copyrightText\": \"NOASSERTION\", \"checksums\": [{\"algorithm\": \"SHA256\", \"checksumValue\": %s}]}", text(sum)
  print packages
  print "  ],"
  print "  \"relationships\": ["
  print "    {\"spdxElementId\": \"SPDXRef-DOCUMENT\", \"relationshipType\": \"DESCRIBES\", \"relatedSpdxElement\": \"SPDXRef-image\"},"
  printf "    {\"spdxElementId\": \"SPDXRef-image\", \"relationshipType\": \"CONTAINS\", \"relatedSpdxElement\": \"SPDXRef-program\"}"
  print relations
  print "  ]"
  print "}"
}'
