// Command mutants is mutation testing: it breaks the packages that decide about money and
// people in one place at a time, and runs their tests. A mutant that no test notices is a
// survivor. Each survivor has to be explained in survivors.md, beside this file; one that
// is not, or fewer than nine killed in ten, is a failure.
//
// The tool is our own because the tests start NATS servers, and so are big to link: the
// tools that there are (gremlins, go-mutesting) compile every mutant by itself, which is
// half a minute for each of a thousand. This one compiles a package once with all of its
// mutants in it, of which an environment variable wakes one.
//
// It changes no file of the repository: mutants are given to the compiler as an overlay.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stages are the tests that a package's mutants have to pass, the quick ones first; what
// a stage kills does not reach the next. Each is a package and a pattern of its tests.
var stages = map[string][][2]string{
	"billing": {
		{"billing", "Fields|Event|Generation|Part|Where|What|Amount|Access|IsAsIts|Bounded|Mutant|AnyOrder|Options|Errors|Check|WhatAStatus"},
		{"billing", "Case|Deleted|Uncollectible|Dunning|Text|Told|Tie|Takes|Hides|Who|Incomplete|Settle|Story|Failure|Real|Twice|Replay|Nobody"},
	},
	"identity": {{"identity", "."}, {"billing", "Case|Story"}},
	"delivery": {{"delivery", "."}},
	"keyword":  {{"keyword", "."}},
	"phone":    {{"phone", "."}},
}

const (
	// leastKilled is the share of mutants that tests must notice, in percent.
	leastKilled = 90
	// drawsEach is how much the property tests draw for each mutant, drawsAgain how much for
	// those that survive it: as much as they do in `make test`.
	drawsEach, drawsAgain = 40, 200
	// patience is how long a stage's tests may take; a mutant that never ends is killed.
	patience = 2 * time.Minute
)

func main() {
	root := flag.String("root", ".", "the repository")
	only := flag.String("only", "", "one package instead of all")
	those := flag.String("those", "", "a file that names mutants, one a line, as they are printed: only those")
	list := flag.Bool("list", false, "print the mutants, and run nothing")
	workers := flag.Int("workers", 2, "test runs at a time")
	flag.Parse()
	packages := slices.Sorted(maps.Keys(stages))
	if *only != "" {
		packages = []string{*only}
	}
	var err error
	switch {
	case *only != "" && stages[*only] == nil:
		err = fmt.Errorf("-only %s: there are no mutants of it", *only)
	case *list:
		err = printAll(*root, packages)
	default:
		err = run(context.Background(), *root, packages, *those, *workers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// printAll prints the mutants of packages.
func printAll(root string, packages []string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, pkg := range packages {
		all, _, err := mutate(root, "internal/"+pkg, dir)
		if err != nil {
			return err
		}
		for _, m := range all {
			fmt.Println(m)
		}
	}
	return nil
}

func run(ctx context.Context, root string, packages []string, those string, workers int) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	explained, err := readSurvivors(filepath.Join(root, "internal/tools/mutants/survivors.md"))
	if err != nil {
		return err
	}
	named, err := readNames(those)
	if err != nil {
		return err
	}
	var failed []error
	var table []figures
	for _, pkg := range packages {
		f, err := try(ctx, root, pkg, workers, explained, named)
		if err != nil {
			failed = append(failed, err)
		}
		if f.pkg != "" {
			table = append(table, f)
		}
	}
	fmt.Printf("%-10s %8s %8s %8s %12s %10s\n", "package", "mutants", "killed", "percent", "unexplained", "took")
	for _, f := range table {
		fmt.Printf("%-10s %8d %8d %8.1f %12d %10v\n", f.pkg, f.mutants, f.killed, f.percent(), f.unexplained, f.took.Round(time.Second))
	}
	return errors.Join(failed...)
}

// figures are what came of a package's mutants.
type figures struct {
	pkg                          string
	mutants, killed, unexplained int
	took                         time.Duration
}

func (f figures) percent() float64 { return 100 * float64(f.killed) / float64(max(1, f.mutants)) }

// try runs the mutants of one package: all, or those that are named.
func try(ctx context.Context, root, pkg string, workers int, explained, named map[string]bool) (figures, error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return figures{}, err
	}
	defer os.RemoveAll(dir)
	mutants, overlay, err := mutate(root, "internal/"+pkg, dir)
	if err != nil {
		return figures{}, err
	}
	tests, err := compile(ctx, root, pkg, dir, overlay)
	if err != nil {
		return figures{}, err
	}
	for _, draws := range []int{drawsEach, drawsAgain} {
		for i := range stages[pkg] { // without a mutant the tests are green, or all would seem killed
			if killed, out := tests.run(ctx, i, 0, draws); killed {
				return figures{}, fmt.Errorf("%s: the tests fail without a mutant:\n%s", pkg, out)
			}
		}
	}
	numbers := make([]int, 0, len(mutants)) // which of them is awake, by its place below
	for n, m := range mutants {
		if named == nil || named[m] {
			mutants[len(numbers)] = m
			numbers = append(numbers, n+1)
		}
	}
	mutants = mutants[:len(numbers)]
	alive := make([]bool, len(mutants))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range next {
				alive[n] = true
				for _, draws := range []int{drawsEach, drawsAgain} {
					for i := 0; i < len(stages[pkg]) && alive[n]; i++ {
						killed, _ := tests.run(ctx, i, numbers[n], draws)
						alive[n] = !killed
					}
				}
				if alive[n] {
					fmt.Println("  alive:", mutants[n])
				}
			}
		})
	}
	for n := range mutants {
		next <- n
	}
	close(next)
	wg.Wait()
	return report(pkg, mutants, alive, explained, time.Since(began))
}

// report gives a package's figures. The error lists survivors that nobody explained.
func report(pkg string, mutants []string, alive []bool, explained map[string]bool, took time.Duration) (figures, error) {
	killed := 0
	var unexplained []string
	for n, m := range mutants {
		switch {
		case !alive[n]:
			killed++
			if explained[m] {
				fmt.Println("  killed, and explained as a survivor:", m)
			}
		case !explained[m]:
			unexplained = append(unexplained, m)
		}
	}
	f := figures{pkg, len(mutants), killed, len(unexplained), took}
	var failed []error
	if percent := f.percent(); percent < leastKilled {
		failed = append(failed, fmt.Errorf("%s: %.1f %% killed, at least %d are asked for", pkg, percent, leastKilled))
	}
	if len(unexplained) > 0 {
		failed = append(failed, fmt.Errorf("%s: survivors that survivors.md does not explain:\n  %s", pkg, strings.Join(unexplained, "\n  ")))
	}
	return f, errors.Join(failed...)
}

// readSurvivors reads the list of survivors that are equivalent: each is a line "- `the
// mutant`: the reason".
func readSurvivors(name string) (map[string]bool, error) {
	doc, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	explained := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "- ``")
		if !ok {
			continue
		}
		mutant, reason, ok := strings.Cut(rest, "``: ")
		if !ok || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s: a survivor without a reason: %s", name, line)
		}
		explained[strings.TrimSpace(mutant)] = true
	}
	return explained, nil
}

// readNames reads the names of mutants, one a line; nil: all of them.
func readNames(file string) (map[string]bool, error) {
	if file == "" {
		return nil, nil
	}
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		names[strings.TrimPrefix(strings.TrimSpace(line), "alive: ")] = true
	}
	return names, nil
}

// binaries are compiled tests, one for each stage.
type binaries struct {
	stages [][2]string
	paths  []string
	dirs   []string
}

// compile links the tests of a package's stages, with all of its mutants asleep.
func compile(ctx context.Context, root, pkg, dir string, overlay map[string]string) (binaries, error) {
	doc, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return binaries{}, err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, doc, 0o600); err != nil {
		return binaries{}, err
	}
	b := binaries{stages: stages[pkg]}
	done := map[string]bool{}
	for _, s := range b.stages {
		out := filepath.Join(dir, s[0]+".test")
		b.paths, b.dirs = append(b.paths, out), append(b.dirs, filepath.Join(root, "internal", s[0]))
		if done[s[0]] {
			continue
		}
		done[s[0]] = true
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", list, "-o", out, "./internal/"+s[0])
		cmd.Dir = root
		if said, err := cmd.CombinedOutput(); err != nil {
			return b, fmt.Errorf("compiling the mutants of %s: %w\n%s", pkg, err, said)
		}
	}
	return b, nil
}

// run runs one stage's tests with one mutant awake; 0: none. draws is RAPID_CHECKS.
func (b binaries) run(ctx context.Context, stage, mutant, draws int) (killed bool, out string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := []string{"-test.failfast", "-test.run", b.stages[stage][1]}
	if pkg := b.stages[stage][0]; pkg == "billing" || pkg == "identity" {
		args = append(args, "-rapid.nofailfile") // what a mutant fails at is not worth a file
	}
	cmd := exec.CommandContext(ctx, b.paths[stage], args...)
	cmd.Dir = b.dirs[stage]
	cmd.Env = append(os.Environ(), "MUTANT="+strconv.Itoa(mutant), "RAPID_CHECKS="+strconv.Itoa(draws), "GOMAXPROCS=2")
	said, err := cmd.CombinedOutput()
	return err != nil, string(said)
}
