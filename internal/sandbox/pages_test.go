package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/natstest"
)

// A block is a block of shell lines in a page.
type block struct{ page, text string }

// eachPage gives the name and the text of every page.
func eachPage(t *testing.T, yield func(name, text string)) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		found, err := filepath.Glob(natstest.Root(t, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			page, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			yield(filepath.Base(f), string(page))
		}
	}
}

// blocks are those of every page, word for word.
func blocks(t *testing.T) (out []block) {
	t.Helper()
	eachPage(t, func(name, text string) {
		for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
			out = append(out, block{name, m[1]})
		}
	})
	return out
}

func (b block) sends() bool    { return strings.Contains(b.text, "curl") }
func (b block) terminal() bool { return strings.HasPrefix(b.text, "# terminal ") }
func (b block) looks() bool    { return strings.Contains(b.text, "n kv get crm ") }

// makes are the targets of a block that is nothing but make.
func (b block) makes() (targets []string) {
	for _, line := range strings.Split(strings.TrimSpace(b.text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		target, ok := strings.CutPrefix(strings.TrimSpace(line), "make ")
		if !ok || strings.Contains(target, " ") {
			return nil
		}
		targets = append(targets, target)
	}
	return targets
}

func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the pages' lines need %s, which this machine has not", tool)
		}
	}
}

// TestEveryBlockIsRun: no page has shell lines that no test runs.
func TestEveryBlockIsRun(t *testing.T) {
	t.Parallel()
	needs(t, "make")
	seen := map[string]bool{}
	for _, b := range blocks(t) {
		targets := b.makes()
		if b.page == "operate.md" {
			continue // TestRunbook runs them
		}
		if !b.sends() && !b.terminal() && !b.looks() && targets == nil {
			t.Errorf("nothing runs these lines of %s:\n%s", b.page, b.text)
		}
		for _, target := range targets {
			if seen[target] {
				continue
			}
			seen[target] = true
			// make demo is run below, make test is running, and what stays or takes hours is
			// at least what make would do.
			if out, err := exec.CommandContext(t.Context(), "make", "-n", "-C", natstest.Root(t, ""), target).CombinedOutput(); err != nil {
				t.Errorf("%s: make %s: %v\n%s", b.page, target, err, out)
			}
		}
	}
	for _, target := range []string{"demo", "run", "test"} {
		if !seen[target] {
			t.Errorf("no page says make %s", target)
		}
	}
}

// TestMakeDemo is what the pages tell a newcomer first, and what README.md shows of it.
func TestMakeDemo(t *testing.T) {
	t.Parallel()
	needs(t, "make")
	out, err := exec.CommandContext(t.Context(), "make", "-C", natstest.Root(t, ""), "demo").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	readme, err := os.ReadFile(natstest.Root(t, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```\n(1  facebook.*?)```").FindSubmatch(readme)
	if shown == nil {
		t.Fatal("README.md does not show the demo")
	}
	for _, line := range strings.Split(strings.TrimSpace(string(shown[1])), "\n") {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " …")           // shortened there
		line = regexp.MustCompile(`\d+\.\d s`).ReplaceAllString(line, "") // as fast as this machine is
		for _, part := range strings.Split(line, ",  after") {
			if part != "…" && !strings.Contains(string(out), strings.TrimSpace(part)) {
				t.Errorf("the demo does not print %q, which README.md shows", part)
			}
		}
	}
}

// TestEveryNamedTestExists: the table of what is promised names tests that there are.
func TestEveryNamedTestExists(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(natstest.Root(t, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources := sources(t)
	names := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(readme, -1)
	if len(names) < 10 {
		t.Errorf("README.md names %d tests", len(names))
	}
	for _, n := range names {
		if !strings.Contains(sources, "func "+string(n[1])+"(") {
			t.Errorf("there is no %s", n[1])
		}
	}
}

// sources is the text of every test file.
func sources(t *testing.T) string {
	t.Helper()
	var text bytes.Buffer
	if err := filepath.WalkDir(natstest.Root(t, ""), func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		text.Write(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// TestByHand does what docs/by-hand.md says, word for word: three terminals, three
// signed webhooks, and a look at what is there. Only addresses are others, by the
// environment.
func TestByHand(t *testing.T) {
	t.Parallel()
	needs(t, "sh", "curl", "openssl", "go")
	for port := 3002; port <= 3004; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Skipf("the page's ports are taken: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ports := freePorts(t, 4)
	dir := t.TempDir()
	conf := confOn(t, dir, ports[0])
	edge := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	env := append(os.Environ(), fmt.Sprint("EDGE_ADDR=127.0.0.1:", ports[1]), "NATS_CONF="+conf, "NATS_STORE_DIR="+filepath.Join(dir, "data"),
		"EDGE_URL="+edge, "PUBLIC_URL="+edge, fmt.Sprint("METRICS_ADDR=127.0.0.1:", ports[2]), fmt.Sprint("CONSOLE_ADDR=127.0.0.1:", ports[3]))
	var page []block
	for _, b := range blocks(t) {
		if b.page == "by-hand.md" {
			page = append(page, b)
		}
	}
	ready := []string{"http://127.0.0.1:3004/", edge + "/readyz", fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[2])}
	for _, b := range page {
		if !b.terminal() {
			continue
		}
		if len(ready) == 0 {
			t.Fatal("more than three terminals")
		}
		if strings.Contains(b.text, "cmd/consumers") {
			env = append(env, fmt.Sprintf("NATS_URL=nats://consumers:consumers@127.0.0.1:%d", ports[0]))
		}
		open(t, b.text, env)
		answers(t, ready[0])
		ready = ready[1:]
	}
	answers(t, fmt.Sprintf("http://127.0.0.1:%d/", ports[3])) // the console
	sent := 0
	for _, b := range page {
		if !b.sends() {
			continue
		}
		sent++
		cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", b.text)
		cmd.Dir, cmd.Env = natstest.Root(t, ""), env
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "200" {
			t.Errorf("%s\nanswered %s, %v", b.text, out, err)
		}
	}
	if sent != 3 || len(ready) != 0 {
		t.Errorf("%d blocks send a webhook, want Stripe's, Meta's and Twilio's; %d terminals are missing", sent, len(ready))
	}
	nc, err := nats.Connect(fmt.Sprintf("nats://operator:operator@127.0.0.1:%d", ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, b := range page {
		for _, k := range regexp.MustCompile(`n kv get crm (\S+)`).FindAllStringSubmatch(b.text, -1) {
			looked++
			deadline := time.Now().Add(20 * time.Second)
			for {
				if _, err := kv.Get(t.Context(), k[1]); err == nil {
					break
				} else if !errors.Is(err, jetstream.ErrKeyNotFound) || time.Now().After(deadline) {
					t.Fatalf("%s: %v", k[1], err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	if looked != 3 {
		t.Errorf("the page looks at %d keys", looked)
	}
	if _, err := exec.LookPath("nats"); err != nil {
		t.Log("no nats CLI here: that the keys are there was seen without it")
		return
	}
	for _, b := range page {
		if !b.looks() {
			continue
		}
		text := strings.ReplaceAll(b.text, "127.0.0.1:4222", fmt.Sprint("127.0.0.1:", ports[0]))
		if out, err := exec.CommandContext(t.Context(), "sh", "-eu", "-c", text).CombinedOutput(); err != nil {
			t.Errorf("%s\n%v\n%s", text, err, out)
		}
	}
}

// confOn writes the repository's nats.conf with a port of its own, and gives its path.
func confOn(t *testing.T, dir string, port int) string {
	t.Helper()
	conf, err := os.ReadFile(natstest.Root(t, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	own := strings.NewReplacer("port: 4222", fmt.Sprint("port: ", port), `http: "127.0.0.1:8222"`, `http: "127.0.0.1:-1"`).Replace(string(conf))
	path := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(path, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open runs a terminal's lines until the test ends, with Ctrl-C.
func open(t *testing.T, text string, env []string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.CommandContext(context.Background(), "sh", "-eu", "-c", text)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = natstest.Root(t, ""), env, &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s\n%s", text, log.String())
		}
	})
}

// answers waits until something answers at a URL, a compilation included.
func answers(t *testing.T, url string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if res, err := http.Get(url); err == nil {
			_ = res.Body.Close()
			if res.StatusCode != http.StatusServiceUnavailable {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing answers at %s", url)
		}
	}
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		ports[i] = natstest.Port(t)
	}
	return ports
}
