package chaos

import (
	"flag"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leadpipe/internal/natstest"
)

var seed = flag.Uint64("seed", 0, "of the chaos; 0: a random one")

func TestMain(m *testing.M) {
	Child()
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// keep makes a folder that stays when there is something in it to look at.
func keep(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	return dir
}

// TestChaos is make chaos in short.
func TestChaos(t *testing.T) {
	t.Parallel()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano() % 1_000_000)
	}
	r, err := Run(t.Context(), Options{Seed: s, Conf: natstest.Root(t, "nats.conf"), Dir: keep(t), People: 60, Length: 8 * time.Second,
		Every: 600 * time.Millisecond, Wait: 2 * time.Minute, Hurry: true, Out: t.Output()})
	if err != nil {
		t.Fatalf("seed %d: %v; logs in %s", s, err, r.Dir)
	}
	t.Log(r)
	if len(r.Violations) > 0 {
		t.Errorf("again with: go test ./internal/chaos -run 'TestChaos$' -seed %d; logs in %s\n%s", s, r.Dir, r.Report())
	}
}
