package internal_test

import (
	"regexp"
	"strings"
	"testing"
)

// ran says of each command that the pages name in running text which test runs it, or why
// none does. What stands in blocks is run by TestEveryBlockIsRun, TestByHand and
// TestRunbook.
var ran = map[string]string{
	"consumers -h":              "TestPrograms",
	"go run ./cmd/consumers -h": "TestPrograms runs the program itself",
	"go run ./cmd/edge -h":      "TestPrograms runs the program itself",
	"consumers check":           "TestRunbook",
	"edge check":                "TestCheck",
	"consumers trace":           "TestRunbook",
	"consumers sms sheets":      "TestChaos, which starts it so",
	"consumers COMMAND …":       "not run: it stands for each command, which have tests of their own",
	"nats consumer reset WEBHOOKS billing --sequence N":             "TestRunbook, with a number for N",
	"nats consumer reset KV_crm sheets --sequence 1":                "TestRunbook",
	"stripe listen --forward-to localhost:3000/api/webhooks/stripe": "not run: Stripe's CLI asks for an account",

	"make demo": "TestMakeDemo",
	"make test": "not run: it is what runs this",
	"make help": "TestEveryTargetIsThere", "make build": "TestEveryTargetIsThere",
	"make run": "TestBrowserEveryButton runs what it starts", "make cluster": "TestClusterLosesServers runs what it starts",
	"make chaos": "TestChaos, for some seconds", "make chaos SEED=1": "TestChaos, for some seconds", "make chaos SEED=7": "TestChaos, for some seconds",
	"make bench-table": "TestRun, for some seconds",
	"make bench":       "not run: it takes half an hour", "make nightly": "not run: it takes hours", "make stress": "not run: it takes half an hour",
	"make stress-browser": "not run: it takes ten minutes",
	"make streams-diff":   "not run: it asks a person", "make streams-apply": "not run: it asks a person",

	"go test -run '^$' -bench Billing/server/1process ./internal/daemon/consumersd": "not run: BenchmarkBilling takes a machine of its own",
	"go test -run TestPoison ./internal/bus":                                        "TestPoison",
	"go test -v -run FullDisk ./internal/daemon/edged":                              "TestFullDisk",
	"go test -v -run TestClusterLosesServers ./internal/chaos":                      "TestClusterLosesServers",
}

// TestEveryCommandIsRun: a page names no command in running text that is not in the list,
// and the list no test that is not there.
func TestEveryCommandIsRun(t *testing.T) {
	t.Parallel()
	named := map[string]bool{}
	command := regexp.MustCompile("`((?:make|nats|go test|go run|consumers|edge|stripe|git|docker|systemctl|curl) [^`\n]+)`")
	block := regexp.MustCompile("(?s)```.*?```")
	for _, page := range pages(t) {
		for _, m := range command.FindAllStringSubmatch(block.ReplaceAllString(read(t, page), ""), -1) {
			named[m[1]] = true
			if ran[m[1]] == "" {
				t.Errorf("%s names `%s`, which nothing runs", page, m[1])
			}
		}
	}
	declared := declaredTests(t)
	test := regexp.MustCompile(`Test[A-Z]\w*`)
	for c, by := range ran {
		if !named[c] {
			t.Errorf("no page names `%s`", c)
		}
		name := test.FindString(by)
		if name != "" && !declared[name] || name == "" && !strings.HasPrefix(by, "not run: ") {
			t.Errorf("`%s` is said to be run by %q", c, by)
		}
	}
}

// TestEveryTargetIsThere: a page names no target that the Makefile lacks.
func TestEveryTargetIsThere(t *testing.T) {
	t.Parallel()
	makefile := read(t, "Makefile")
	for c := range ran {
		if target, ok := strings.CutPrefix(c, "make "); ok {
			target, _, _ = strings.Cut(target, " ")
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:.*##`).MatchString(makefile) {
				t.Errorf("the Makefile has no target %s with its explanation", target)
			}
		}
	}
}
