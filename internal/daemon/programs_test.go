package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/daemon/edged"
)

// TestMain lets the scripts run the two programs as processes of their own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"edge":      func() { os.Exit(edged.Main(os.Args[1:])) },
		"consumers": func() { os.Exit(consumersd.Main(os.Args[1:])) },
	})
}

// TestPrograms runs testdata/script: each file is a rule about the programs.
func TestPrograms(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			conf, err := os.ReadFile(filepath.Join("..", "..", "nats.conf"))
			if err != nil {
				return err
			}
			// A NATS server on a free port, without monitoring's fixed one.
			free := strings.NewReplacer("port: 4222", "port: -1", `http: "127.0.0.1:8222"`, `http: "127.0.0.1:-1"`).Replace(string(conf))
			e.Setenv("NATS_CONF", "nats.conf")
			e.Setenv("EDGE_ADDR", "127.0.0.1:0")
			e.Setenv("METRICS_ADDR", "127.0.0.1:0")
			return os.WriteFile(filepath.Join(e.WorkDir, "nats.conf"), []byte(free), 0o600)
		},
	})
}
