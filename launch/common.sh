# shellcheck shell=bash
# What all launchers share (they source it): their help, how they end when something given is wrong, and how they
# print a command.

usage() {  # the comment at the head of the launcher
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {  # one line that names what was given, what was found and what is allowed
  say "$@"
  exit 2
}

number() {  # OPTION VALUE LEAST: the value, a whole number
  if ! [[ "$2" =~ ^[0-9]{1,6}$ ]] || [ "$((10#$2))" -lt "$3" ]; then
    die "$1 ${2:-(nothing)}: allowed a whole number, $3 or more"
  fi
  printf '%d' "$((10#$2))"
}

matching() {  # OPTION VALUE PATTERN ALLOWED: the value; ALLOWED says in words what the pattern takes
  [[ "$2" =~ ^($3)$ ]] || die "$1 ${2:-(nothing)}: allowed $4"
  printf '%s' "$2"
}

quoted() {  # the arguments as one line that a shell reads back as the same arguments
  local word line=''
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  printf '%s' "${line# }"
}

installed() {  # PROGRAM ...
  local program
  for program in "$@"; do
    command -v "$program" > /dev/null || die "$program: not found; install it, or put it on PATH"
  done
}

training_arguments() {  # everything from --config on; sets `config_file`, which must be here
  config_file=''
  case ${1-} in
    --config) config_file=${2-} ;;
    --config=*) config_file=${1#*=} ;;
    ?*) die "$1: unknown option (see --help)" ;;
  esac
  config_file=${config_file%%:*}
  [ -n "$config_file" ] || die "--config FILE: missing (see --help)"
  [ -f "$config_file" ] || die "--config $config_file: no such file"
  local argument
  for argument in "${@:2}"; do  # else a --dry-run there would be no dry run
    argument=${argument%%=*}
    if [[ "$argument" =~ ^--[a-z-]+$ && "$argument" != --config ]] &&
      grep -qE "^ {4}([^ ]+ \\| )*$argument( \\| [^ ]+)*\\)" "$0"; then
      die "$argument: goes before --config (see --help)"
    fi
  done
}

workdir() {  # the value of --workdir among the training arguments, or nothing
  local argument previous='' found=''
  for argument in "$@"; do
    case $argument in --workdir=*) found=${argument#*=} ;; esac
    [ "$previous" != --workdir ] || found=$argument
    previous=$argument
  done
  printf '%s' "$found"
}
