package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"leadpipe/internal/bench"
)

// measure measures the programs, and writes the table and the figures behind it.
func measure(ctx context.Context, cfg config) (err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return fmt.Errorf("making a directory for stores and logs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o := bench.Full()
	o.Bin, o.Conf, o.Dir, o.Log = cfg.Bin, cfg.Conf, dir, func(what string) { fmt.Fprintf(os.Stderr, "measuring: %s\n", what) }
	r, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	figures, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the figures: %w", err)
	}
	if err := os.WriteFile(filepath.Join(cfg.BenchOut, "bench.json"), append(figures, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	if err := os.WriteFile(filepath.Join(cfg.BenchOut, "bench.md"), []byte(r.Page()), 0o644); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	fmt.Print(r.Markdown())
	return nil
}
