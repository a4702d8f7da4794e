// Command check holds the Google stand-in against a second client: Google's own for
// Node.js, which it fetches with npm. It is not part of the tests, since it needs node,
// npm and a network:
//
//	go run ./internal/sandbox/google/check
package main

import (
	"context"
	"embed"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"leadpipe/internal/sandbox/google"
)

//go:embed check.mjs package.json
var files embed.FS

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	s, err := google.New(google.Options{Spreadsheets: []string{"book"}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }() // ends with Close below
	defer func() { _ = server.Close() }()
	dir, err := os.MkdirTemp("", "google-check")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, name := range []string{"check.mjs", "package.json"} {
		data, err := files.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	for _, command := range [][]string{{"npm", "install", "--silent", "--no-audit", "--no-fund"}, {"node", "check.mjs", "http://" + l.Addr().String(), s.Token()}} {
		c := exec.CommandContext(ctx, command[0], command[1:]...)
		c.Dir, c.Stdout, c.Stderr = dir, os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s: %w", command[0], err)
		}
	}
	return nil
}
