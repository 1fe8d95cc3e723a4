#!/bin/sh
# A question answered from a PDF, a text file and a Chinese text file, by the checkpoint that the package brings.
set -e
cd "$(dirname "$0")/.."
run() {
    printf '\n$ minicpm'
    for word in "$@"; do
        case $word in *[!A-Za-z0-9./_-]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    minicpm "$@"
}
run index examples/documents --index .demo --embeddings demo
run ask --index .demo --model demo \
    "How long does the warranty last?" \
    "Who repairs the roof?" \
    "谁负责北京仓库？" \
    "What is the recipe for apple pie?"
