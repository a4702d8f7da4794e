package keyword_test

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"leadpipe/internal/keyword"
)

func TestOptOut(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		// The keywords themselves.
		"STOP": "STOP", "ARRETER": "ARRETER", "ARRET": "ARRET", "DESABONNER": "DESABONNER", "UNSUBSCRIBE": "UNSUBSCRIBE",
		"STOPALL": "STOPALL", "CANCEL": "CANCEL", "END": "END", "QUIT": "QUIT", "REVOKE": "REVOKE", "OPTOUT": "OPTOUT",
		// Letter case and accents.
		"stop": "STOP", "Stop": "STOP", "sToP": "STOP", "arrêt": "ARRET", "ARRÊT": "ARRET", "Arrêter": "ARRETER",
		"désabonner": "DESABONNER", "DÉSABONNER": "DESABONNER", "unsubscribe": "UNSUBSCRIBE",
		norm.NFD.String("arrêt"): "ARRET", "ＳＴＯＰ": "STOP",
		// Space, quotes and punctuation.
		" stop ": "STOP", "\tSTOP\n": "STOP", "\u00a0STOP\u00a0": "STOP", "STOP.": "STOP", "STOP!!!": "STOP", "« STOP »": "STOP",
		"\"stop\"": "STOP", "'stop'": "STOP", "“STOP”": "STOP", "(stop)": "STOP", "…stop…": "STOP", "STOP🛑": "STOP", "🛑 STOP": "STOP",
		"-stop-": "STOP", "S\u200bTOP": "STOP", "\u200eSTOP\u200e": "STOP", "¡STOP!": "STOP",
		// The first word.
		"STOP 36123": "STOP", "stop merci": "STOP", "Stop svp": "STOP", "STOP, je ne veux plus de vos messages": "STOP",
		"STOP\nEnvoyé de mon iPhone": "STOP", "stop stop stop": "STOP", "Stop!Arrêtez": "STOP", "stop sms": "STOP",
		"Arrêter svp": "ARRETER", "arret immediat": "ARRET", "Désabonner moi": "DESABONNER", "unsubscribe me please": "UNSUBSCRIBE",
		"cancel my subscription": "CANCEL", "End this": "END", "quit it": "QUIT", "STOP-36123": "STOP", "stop?": "STOP",
		"Arrêt maladie demain": "ARRET", // erring to the safe side
	} {
		got, ok := keyword.OptOut(text)
		if !ok || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", " ", "?", "🛑", "Oui", "Non merci", "ok", "Bonjour", "1", "36123",
		"ne pas arreter", "Ne pas arrêter svp", "Merci de ne pas stopper", "je ne veux pas STOP", "non stop", "Non-stop",
		"stoppez", "Stopper", "STOPPED", "nonstop", "autostop", "stopsms", "Il faut arrêter", "arrêtez", "arretez tout", "arrete",
		"Je veux me désabonner", "me desabonner", "désabonnement", "Comment me désinscrire ?", "Please unsubscribe me",
		"I want to cancel", "the end", "weekend", "Endives au jambon", "quitter", "I quit", "START", "Rappelez-moi demain", "STO P", "S T O P",
		"Bus stop 12", "Je suis en arrêt maladie", "HELP", "INFO", "CONTACT",
	} {
		if got, ok := keyword.OptOut(text); ok {
			t.Errorf("%q is heard as %q", text, got)
		}
	}
}

func TestOptIn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"START": true, "start": true, " Start! ": true, "UNSTOP": true,
		"YES": false, "oui": false, "STOP": false, "start again please": false, "": false,
	} {
		if got := keyword.OptIn(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzOptOut(f *testing.F) {
	for _, s := range []string{"STOP", "arrêt", "« STOP »", "ne pas arreter", "\xff\xfe", "e\u0301"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := keyword.OptOut(s)
		if !ok {
			return
		}
		if again, ok := keyword.OptOut(" " + got + " merci"); !ok || again != got {
			t.Fatalf("%q is heard as %q, which is not heard itself", s, got)
		}
		if keyword.OptIn(s) {
			t.Fatalf("%q opts in and out", s)
		}
		if strings.ToUpper(got) != got {
			t.Fatalf("%q is not normalised", got)
		}
	})
}
