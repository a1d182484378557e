/**
 * Completion for shells. Each script asks the program itself (`__complete WORDS…`: candidates, one a line with a summary
 * after a tab, then `:DIRECTIVE`, whose bit 4 means that file names make no sense here), so it never goes out of date.
 */

const bash = `# bash completion for skiff
_skiff() {
  local line=\${COMP_LINE:0:COMP_POINT} cur="" directive=0 candidate
  local -a words=() answer=()
  read -ra words <<<"$line"
  case $line in *[[:space:]]) words+=("") ;; esac
  cur=\${words[\${#words[@]} - 1]}
  mapfile -t answer < <("\${words[0]}" __complete "\${words[@]:1}" 2>/dev/null)
  COMPREPLY=()
  for candidate in "\${answer[@]}"; do
    case $candidate in
      :[0-9]*) directive=\${candidate#:} ;;
      *) candidate=\${candidate%%$'\\t'*}; [[ $candidate != "$cur"* ]] || COMPREPLY+=("$candidate") ;;
    esac
  done
  if ((\${#COMPREPLY[@]} == 0 && (directive & 4) == 0)); then
    compopt -o default 2>/dev/null
    return
  fi
  # Where a colon breaks words, bash replaces only what stands after the last one.
  if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
    local before=\${cur%"\${cur##*:}"}
    COMPREPLY=("\${COMPREPLY[@]#"$before"}")
  fi
}
complete -F _skiff skiff
`;

const zsh = `#compdef skiff
_skiff() {
  local line directive=0 tab=$'\\t'
  local -a answer candidates
  answer=("\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  for line in "\${answer[@]}"; do
    case $line in
      :[0-9]*) directive=\${line#:} ;;
      "") ;;
      *$tab*) candidates+=("\${\${line%%$tab*}//:/\\\\:}:\${line#*$tab}") ;;
      *) candidates+=("\${line//:/\\\\:}") ;;
    esac
  done
  if (( \${#candidates} > 0 )); then
    _describe -t skiff skiff candidates
  elif (( (directive & 4) == 0 )); then
    _files
  fi
}
if [ "$funcstack[1]" = _skiff ]; then _skiff "$@"; else compdef _skiff skiff; fi
`;

const fish = `# fish completion for skiff
function __skiff_answer
    set -l words (commandline -opc)
    set -l answer ($words[1] __complete $words[2..] (commandline -ct) 2>/dev/null)
    set -l directive 0
    set -l candidates
    for line in $answer
        if string match -qr '^:[0-9]+$' -- $line
            set directive (string sub -s 2 -- $line)
        else
            set -a candidates $line
        end
    end
    if test (count $candidates) -gt 0
        printf '%s\\n' $candidates
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path (commandline -ct)
    end
end
complete -c skiff -f -a '(__skiff_answer)'
`;

/** By the shell's name, which is what \`skiff completion\` takes. */
export const completionScripts: Readonly<Record<string, string>> = { bash, zsh, fish };
