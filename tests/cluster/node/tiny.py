"""A small image for tests of the node itself: one program that answers HTTP, and asks others when it is told to."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

from infra.image.oci import Blob, write
from infra.image.recipes import Image
from infra.kubernetes.install import find_go

REFERENCE = "localhost/tiny:1"
PORT = 8080
SOURCE = """\
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// answers its host's name at /, and at /ask?url=... what another answers, or 502 with the reason
func main() {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	http.HandleFunc("/", func(out http.ResponseWriter, in *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprint(out, name)
	})
	http.HandleFunc("/ask", func(out http.ResponseWriter, in *http.Request) {
		answer, err := client.Get(in.URL.Query().Get("url"))
		if err != nil {
			http.Error(out, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		io.Copy(out, answer.Body)
	})
	fmt.Println(http.ListenAndServe(":" + os.Args[1], nil))
}
"""


def tiny_archive(folder: Path) -> Path:
    """Builds the program and its image."""
    (folder / "main.go").write_text(SOURCE, encoding="utf-8")
    (folder / "go.mod").write_text("module tiny\n\ngo 1.21\n", encoding="utf-8")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    subprocess.run([find_go((1, 21)).path, "build", "-o", "tiny", "."], cwd=folder, env=environment, check=True)
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(folder / "tiny", "tiny")
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    blob = Blob("tiny", digest, layer.stat().st_size, layer)
    archive = folder / "tiny.oci.tar"
    write(
        Image("tiny", "1", (), ("/tiny", str(PORT)), "65532:65532"), REFERENCE, [blob], archive, "1970-01-01T00:00:00Z"
    )
    return archive
