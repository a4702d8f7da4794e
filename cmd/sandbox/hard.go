package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"leadpipe/internal/chaos"
)

// hard runs what is hard on the programs: chaos, or a cluster for a person to be hard on.
func hard(ctx context.Context, cfg config, what string) error {
	conf, err := filepath.Abs(cfg.Conf)
	if err != nil {
		return fmt.Errorf("finding nats.conf: %w", err)
	}
	dir, err := os.MkdirTemp("", what)
	if err != nil {
		return fmt.Errorf("making a directory for logs: %w", err)
	}
	if what == "cluster" {
		err := chaos.Cluster(ctx, chaos.ClusterOptions{Conf: conf, Dir: dir, Out: os.Stdout})
		if err != nil {
			return fmt.Errorf("%w; logs in %s", err, dir)
		}
		return os.RemoveAll(dir)
	}
	seed := uint64(cfg.Seed)
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	r, err := chaos.Run(ctx, chaos.Options{Seed: seed, Conf: conf, Dir: dir, Out: os.Stdout, Length: cfg.Length, Every: time.Second, Wait: 4 * time.Minute,
		People: int(cfg.Length.Seconds() * peopleASecond)})
	if err != nil {
		return fmt.Errorf("seed %d: %w; logs in %s", seed, err, dir)
	}
	fmt.Println(r)
	if len(r.Violations) > 0 {
		fmt.Printf("%sPlan, logs and this report are in %s; again with: make chaos SEED=%d\n", r.Report(), r.Dir, seed)
		return errors.New("violations were found")
	}
	return nil
}

// peopleASecond is how many stories begin in a second of chaos, of five webhooks each.
const peopleASecond = 5
